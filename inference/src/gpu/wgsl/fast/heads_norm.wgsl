if $NORMED {
        var squares = 0.0;
        for (var i = t; i < HEAD; i += $WGu) {
            squares += value[i] * value[i];
        }
        let r = inverse_rms(t, squares, HEAD);
        let weights_at = select(0u, HEAD, head >= HEADS);
        for (var i = t; i < HEAD; i += $WGu) {
            value[i] = value[i] * r * weights[weights_at + i];
        }
        workgroupBarrier();
    }
