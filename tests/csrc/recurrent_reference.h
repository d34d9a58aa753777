/* The formulas at the head of csrc/recurrent.h, one number at a time: the specification of the
 * kernels, to the bit.
 *
 * Included once for float and once for double by recurrent_check.c, which defines real, FMA and
 * REFERENCE(name). tanh and sigmoid are the kernels' own maps; everything else is written out in
 * the order in which recurrent.h says it is rounded. H <= 300.
 */

static real REFERENCE(map)(const mg_kernels *k, int map, real x) {
    real y;
    k->map[map](1, &x, 1, &y);
    return y;
}
#define TANH(x) REFERENCE(map)(k, mg_map_tanh, x)
#define SIGMOID(x) REFERENCE(map)(k, mg_map_sigmoid, x)
#define AT(array, index) (((const real *)(array))[index])
#define OUT(array, index) (((real *)(array))[index])

static int REFERENCE(active)(const mg_recurrent *r, size_t t, size_t b) { return !r->lengths || t < (size_t)r->lengths[b]; }

/* The state of unit j before step t: from `states` over time, or the initial one, or 0. */
static real REFERENCE(before)(const mg_recurrent *r, const void *states, const void *initial, size_t t, size_t b, size_t j) {
    size_t B = r->B, H = r->H, last = (r->lengths ? (size_t)r->lengths[b] : r->T) - 1;
    if (r->reset && r->reset[t * B + b]) return 0;
    if (t == (r->reverse ? last : 0)) return initial ? AT(initial, b * H + j) : 0;
    return AT(states, ((r->reverse ? t + 1 : t - 1) * B + b) * H + j);
}

static void REFERENCE(forward)(const mg_kernels *k, const mg_recurrent *r) {
    size_t T = r->T, B = r->B, I = r->I, H = r->H, G = k->cells[r->cell]->gates;
    real hm[300], gated[300], a[4];
    int is_gru = r->cell == mg_cell_gru || r->cell == mg_cell_gru_after;
    for (size_t i = 0; i < B * H; i++) {
        OUT(r->h_T, i) = r->h0 ? AT(r->h0, i) : 0;
        if (r->cell == mg_cell_lstm) OUT(r->c_T, i) = r->c0 ? AT(r->c0, i) : 0;
    }
    for (size_t step = 0; step < T; step++)
        for (size_t b = 0; b < B; b++) {
            size_t t = r->reverse ? T - 1 - step : step, now = t * B + b;
            real *h = (real *)r->h + now * H;
            real *gates = r->gates ? (real *)r->gates + now * G * H : NULL, *cells = r->cells ? (real *)r->cells + now * H : NULL;
            const real *p = r->p;
            if (!REFERENCE(active)(r, t, b)) {
                memset(h, 0, H * sizeof(real));
                if (gates) memset(gates, 0, G * H * sizeof(real));
                if (cells) memset(cells, 0, H * sizeof(real));
                continue;
            }
            for (size_t j = 0; j < H; j++)
                hm[j] = REFERENCE(before)(r, r->h, r->h0, t, b, j) * (r->mask ? AT(r->mask, b * H + j) : 1);
            for (int half = is_gru ? 0 : 1; half < 2; half++)   /* a GRU's n needs the r of all units */
                for (size_t j = 0; j < H; j++) {
                    for (size_t q = 0; q < G; q++) {
                        int of_n = is_gru && q == 2;
                        a[q] = r->b ? AT(r->b, q * H + j) : 0;
                        for (size_t i = 0; i < I; i++) a[q] = FMA(AT(r->x, now * I + i), AT(r->w, i * G * H + q * H + j), a[q]);
                        if (of_n && (half == 0 || r->cell == mg_cell_gru_after)) continue;
                        for (size_t i = 0; i < H; i++)
                            a[q] = FMA(of_n ? gated[i] : hm[i], AT(r->u, i * G * H + q * H + j), a[q]);
                    }
                    if (r->cell == mg_cell_rnn_tanh) {
                        h[j] = TANH(a[0]);
                    } else if (r->cell == mg_cell_rnn_relu) {
                        h[j] = a[0] > 0 ? a[0] : 0;
                    } else if (r->cell == mg_cell_lstm) {
                        real c = REFERENCE(before)(r, r->cells, r->c0, t, b, j);
                        if (p) a[0] = a[0] + p[j] * c, a[1] = a[1] + p[H + j] * c;
                        real i = SIGMOID(a[0]), f = SIGMOID(a[1]), g = TANH(a[2]);
                        c = f * c + i * g;
                        if (p) a[3] = a[3] + p[2 * H + j] * c;
                        real o = SIGMOID(a[3]);
                        h[j] = o * TANH(c);
                        cells[j] = c;
                        gates[j] = i, gates[H + j] = f, gates[2 * H + j] = g, gates[3 * H + j] = o;
                        OUT(r->c_T, b * H + j) = c;
                    } else {
                        real s = REFERENCE(before)(r, r->h, r->h0, t, b, j), reset = SIGMOID(a[0]), z = SIGMOID(a[1]), n;
                        if (half == 0) {
                            gated[j] = reset * hm[j];
                            continue;
                        }
                        if (r->cell == mg_cell_gru_after) {
                            real u = r->b ? AT(r->b, 3 * H + j) : 0;
                            for (size_t i = 0; i < H; i++) u = FMA(hm[i], AT(r->u, i * G * H + 2 * H + j), u);
                            n = TANH(a[2] + reset * u);
                            cells[j] = u;
                        } else {
                            n = TANH(a[2]);
                        }
                        h[j] = (1 - z) * n + z * s;
                        gates[j] = reset, gates[H + j] = z, gates[2 * H + j] = n;
                    }
                    OUT(r->h_T, b * H + j) = h[j];
                }
        }
}

/* y + low + x in twice the precision: add_rows of kernels.h for one element. A float's sum is a
 * double, and stands in low. */
static void REFERENCE(add_to_sum)(real *y, double *low, real x) {
    if (sizeof(real) == 4) {
        *low += (double)x;
    } else {
        real sum = *y + x, from_x = sum - *y;
        *low += (double)((*y - (sum - from_x)) + (x - from_x));
        *y = sum;
    }
}

static real REFERENCE(tanh_grad)(real d, real y) { return d * (1 - y * y); }
static real REFERENCE(sigmoid_grad)(real d, real y) { return d * (y * (1 - y)); }

static void REFERENCE(backward)(const mg_kernels *k, const mg_recurrent *r, const mg_recurrent_grads *g) {
    size_t T = r->T, B = r->B, I = r->I, H = r->H, columns = k->cells[r->cell]->gates * H, D = k->cells[r->cell]->biases * H;
    real *S = g->dh0, *U = g->dc0, da[4 * 300], hm[300], gated[300], v[300], through[300];
    int is_gru = r->cell == mg_cell_gru || r->cell == mg_cell_gru_after;
    for (size_t i = 0; i < B * H; i++) {
        S[i] = g->dh_T ? AT(g->dh_T, i) : 0;
        U[i] = g->dc_T ? AT(g->dc_T, i) : 0;
    }
    memset(g->dx, 0, T * B * I * sizeof(real));
    for (size_t step = T; step-- > 0;)
        for (size_t b = 0; b < B; b++) {
            size_t t = r->reverse ? T - 1 - step : step, now = t * B + b;
            if (!REFERENCE(active)(r, t, b)) continue;
            const real *gates = (const real *)r->gates + (r->gates ? now * columns : 0), *p = r->p;
            for (size_t j = 0; j < H; j++)
                hm[j] = REFERENCE(before)(r, r->h, r->h0, t, b, j) * (r->mask ? AT(r->mask, b * H + j) : 1);
            for (size_t j = 0; j < H; j++) {
                real d = (g->dh ? AT(g->dh, now * H + j) : 0) + S[b * H + j], h = AT(r->h, now * H + j);
                if (r->cell == mg_cell_rnn_tanh) {
                    da[j] = REFERENCE(tanh_grad)(d, h);
                } else if (r->cell == mg_cell_rnn_relu) {
                    da[j] = h > 0 ? d : 0;
                } else if (r->cell == mg_cell_lstm) {
                    real i = gates[j], f = gates[H + j], G = gates[2 * H + j], o = gates[3 * H + j];
                    real c = AT(r->cells, now * H + j);
                    real c_before = REFERENCE(before)(r, r->cells, r->c0, t, b, j), tanh_c = TANH(c);
                    real e = ((g->dc ? AT(g->dc, now * H + j) : 0) + U[b * H + j]) + REFERENCE(tanh_grad)(d * o, tanh_c);
                    da[3 * H + j] = REFERENCE(sigmoid_grad)(d * tanh_c, o);
                    if (p) e = e + da[3 * H + j] * p[2 * H + j];
                    da[j] = REFERENCE(sigmoid_grad)(e * G, i);
                    da[H + j] = REFERENCE(sigmoid_grad)(e * c_before, f);
                    da[2 * H + j] = REFERENCE(tanh_grad)(e * i, G);
                    U[b * H + j] = e * f;
                    if (p) U[b * H + j] = (U[b * H + j] + da[H + j] * p[H + j]) + da[j] * p[j];
                    if (g->dp) {
                        const real dp[3] = {da[j] * c_before, da[H + j] * c_before, da[3 * H + j] * c};
                        for (size_t q = 0; q < 3; q++)
                            REFERENCE(add_to_sum)(&OUT(g->dp, q * H + j), g->dp_low + q * H + j, dp[q]);
                    }
                } else {
                    real reset = gates[j], z = gates[H + j], n = gates[2 * H + j], s = REFERENCE(before)(r, r->h, r->h0, t, b, j);
                    da[2 * H + j] = REFERENCE(tanh_grad)(d * (1 - z), n);
                    da[H + j] = REFERENCE(sigmoid_grad)(d * s - d * n, z);
                    through[j] = d * z;
                    gated[j] = reset * hm[j];
                    if (r->cell == mg_cell_gru_after) {
                        da[3 * H + j] = da[2 * H + j] * reset;
                        da[j] = REFERENCE(sigmoid_grad)(da[2 * H + j] * AT(r->cells, now * H + j), reset);
                    }
                }
            }
            if (r->cell == mg_cell_gru)
                for (size_t j = 0; j < H; j++) {
                    v[j] = 0;
                    for (size_t c = 0; c < H; c++) v[j] = FMA(da[2 * H + c], AT(r->u, j * columns + 2 * H + c), v[j]);
                    da[j] = REFERENCE(sigmoid_grad)(v[j] * hm[j], gates[j]);
                }
            int cut = r->reset && r->reset[now];
            for (size_t j = 0; j < H; j++) {
                real sum = r->cell == mg_cell_gru ? v[j] * gates[j] : 0;
                if (is_gru && !r->mask) sum = r->cell == mg_cell_gru ? through[j] + sum : through[j];
                for (size_t c = 0; c < (r->cell == mg_cell_gru ? 2 * H : columns); c++) {
                    size_t of = r->cell == mg_cell_gru_after && c >= 2 * H ? c + H : c;
                    sum = FMA(da[of], AT(r->u, j * columns + c), sum);
                }
                if (r->mask) sum = sum * AT(r->mask, b * H + j);
                if (r->mask && is_gru) sum = through[j] + sum;
                S[b * H + j] = cut ? 0 : sum;
                if (cut) U[b * H + j] = 0;
            }
            for (size_t i = 0; i < I; i++) {
                real sum = 0;
                for (size_t c = 0; c < columns; c++) sum = FMA(da[c], AT(r->w, i * columns + c), sum);
                OUT(g->dx, now * I + i) = sum;
                for (size_t c = 0; c < columns; c++)
                    OUT(g->dw, i * columns + c) = FMA(AT(r->x, now * I + i), da[c], OUT(g->dw, i * columns + c));
            }
            for (size_t i = 0; i < H; i++)
                for (size_t c = 0; c < columns; c++) {
                    size_t of = r->cell == mg_cell_gru_after && c >= 2 * H ? c + H : c;
                    real operand = r->cell == mg_cell_gru && c >= 2 * H ? gated[i] : hm[i];
                    OUT(g->du, i * columns + c) = FMA(operand, da[of], OUT(g->du, i * columns + c));
                }
            for (size_t c = 0; c < D && g->db; c++)
                REFERENCE(add_to_sum)(&OUT(g->db, c), g->db_low + c, da[c]);
        }
}

#undef TANH
#undef SIGMOID
#undef AT
#undef OUT
