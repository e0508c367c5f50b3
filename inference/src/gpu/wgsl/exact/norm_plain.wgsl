for (var unit = t; unit < N / 16u; unit += $WGu) {
        for (var i = unit * 16u; i < unit * 16u + 16u; i++) {
            states[at + i] = f_add(states[at + i], branch[at + i]);
        }
    }
