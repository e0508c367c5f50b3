if $NORMED {
        let exponent = q16_exponent(most);
        var squares = vec2<u32>(0u);
        for (var i = t; i < HEAD; i += $WGu) {
            squares = add64(squares, square(rnd(value[i], exponent)));
        }
        let r = inverse_rms(group_sum(t, squares), exponent, $HEAD, $EPSu);
        let weights_at = select(0u, HEAD, head >= HEADS);
        for (var i = t; i < HEAD; i += $WGu) {
            value[i] = f_mul(f_mul(value[i], r), weights[weights_at + i]);
        }
        workgroupBarrier();
        most = max(most, largest(t));
    }
