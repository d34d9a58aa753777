/* The formulas at the heads of the files of csrc/recurrent/ (recurrent.h, rnn.inc, ...), one number
 * at a time: the specification of the kernels, to the bit.
 *
 * Included once for float and once for double by recurrent_check.c, which defines real, FMA and
 * REFERENCE(name). tanh and sigmoid are the kernels' own maps; everything else is written out in
 * the order in which the formulas are rounded. H <= 300.
 */

#define PLACE REFERENCE(place)
#define TANH(x) REFERENCE(map)(s->k, mg_map_tanh, x)
#define SIGMOID(x) REFERENCE(map)(s->k, mg_map_sigmoid, x)
#define AT(array, index) (((const real *)(array))[index])
#define OUT(array, index) (((real *)(array))[index])

static real REFERENCE(map)(const mg_kernels *k, int map, real x) {
    real y;
    k->map[map](1, &x, 1, &y);
    return y;
}

/* One row of one step. */
typedef struct PLACE {
    const mg_kernels *k;
    const mg_recurrent *r;
    size_t t, b, now;  /* now: the row of (T B, ...) */
    size_t H, columns; /* columns of W and U */
    real hm[300];
    real *h, *cells, *gates; /* of this row; cells and gates may be NULL */
    /* Backward: the gradients of h' and c' from the step after, then those for the step before; da;
     * and for GRU r * hm. */
    real *dh_next, *dc_next;
    real da[4 * 300], gated[300];
} PLACE;

static int REFERENCE(active)(const mg_recurrent *r, size_t t, size_t b) {
    return !r->lengths || t < (size_t)r->lengths[b];
}

/* The state of unit j before the step: from `states` over time, or the initial one, or 0. */
static real REFERENCE(before)(const PLACE *s, const void *states, const void *initial, size_t j) {
    const mg_recurrent *r = s->r;
    size_t last = (r->lengths ? (size_t)r->lengths[s->b] : r->T) - 1;
    if (r->reset && r->reset[s->now]) return 0;
    if (s->t == (r->reverse ? last : 0)) return initial ? AT(initial, s->b * s->H + j) : 0;
    return AT(states, (r->reverse ? s->now + r->B : s->now - r->B) * s->H + j);
}

static real REFERENCE(h_before)(const PLACE *s, size_t j) {
    return REFERENCE(before)(s, s->r->h, s->r->h0, j);
}

static PLACE REFERENCE(place_of)(const mg_kernels *k, const mg_recurrent *r, size_t step,
                                 size_t b) {
    PLACE s = {.k = k, .r = r, .b = b, .H = r->H};
    s.t = r->reverse ? r->T - 1 - step : step;
    s.now = s.t * r->B + b;
    s.columns = k->cells[r->cell]->gates * r->H;
    s.h = (real *)r->h + s.now * s.H;
    s.cells = r->cells ? (real *)r->cells + s.now * s.H : NULL;
    s.gates = r->gates ? (real *)r->gates + s.now * s.columns : NULL;
    for (size_t j = 0; j < s.H && REFERENCE(active)(r, s.t, b); j++)
        s.hm[j] = REFERENCE(h_before)(&s, j) * (r->mask ? AT(r->mask, b * s.H + j) : 1);
    return s;
}

/* ---- Forward ---- */

/* b + x W for unit j of gate q. */
static real REFERENCE(from_x)(const PLACE *s, size_t q, size_t j) {
    const mg_recurrent *r = s->r;
    size_t column = q * s->H + j;
    real a = r->b ? AT(r->b, column) : 0;
    for (size_t i = 0; i < r->I; i++)
        a = FMA(AT(r->x, s->now * r->I + i), AT(r->w, i * s->columns + column), a);
    return a;
}

/* a + operand U for the same. */
static real REFERENCE(plus_u)(const PLACE *s, real a, const real *operand, size_t q, size_t j) {
    for (size_t i = 0; i < s->H; i++)
        a = FMA(operand[i], AT(s->r->u, i * s->columns + q * s->H + j), a);
    return a;
}

static real REFERENCE(sum)(const PLACE *s, size_t q, size_t j) {
    return REFERENCE(plus_u)(s, REFERENCE(from_x)(s, q, j), s->hm, q, j);
}

static void REFERENCE(rnn)(const PLACE *s, int is_relu) {
    for (size_t j = 0; j < s->H; j++) {
        real a = REFERENCE(sum)(s, 0, j);
        if (is_relu) s->h[j] = a > 0 ? a : 0;
        else s->h[j] = TANH(a);
    }
}

static void REFERENCE(lstm)(const PLACE *s) {
    size_t H = s->H;
    const real *p = s->r->p;
    for (size_t j = 0; j < H; j++) {
        real a_i = REFERENCE(sum)(s, 0, j), a_f = REFERENCE(sum)(s, 1, j);
        real a_g = REFERENCE(sum)(s, 2, j), a_o = REFERENCE(sum)(s, 3, j);
        real c = REFERENCE(before)(s, s->r->cells, s->r->c0, j);
        if (p) a_i = a_i + p[j] * c;
        if (p) a_f = a_f + p[H + j] * c;
        real i = SIGMOID(a_i), f = SIGMOID(a_f), g = TANH(a_g);
        c = f * c + i * g;
        if (p) a_o = a_o + p[2 * H + j] * c;
        real o = SIGMOID(a_o);
        s->h[j] = o * TANH(c);
        s->cells[j] = c;
        s->gates[j] = i;
        s->gates[H + j] = f;
        s->gates[2 * H + j] = g;
        s->gates[3 * H + j] = o;
        OUT(s->r->c_T, s->b * H + j) = c;
    }
}

static void REFERENCE(gru)(const PLACE *s, int after) {
    size_t H = s->H;
    real gated[300];
    for (size_t j = 0; j < H; j++) {
        s->gates[j] = SIGMOID(REFERENCE(sum)(s, 0, j));
        s->gates[H + j] = SIGMOID(REFERENCE(sum)(s, 1, j));
        gated[j] = s->gates[j] * s->hm[j];
    }
    for (size_t j = 0; j < H; j++) {
        real reset = s->gates[j], z = s->gates[H + j], a_n = REFERENCE(from_x)(s, 2, j);
        if (after) {
            real u = REFERENCE(plus_u)(s, s->r->b ? AT(s->r->b, 3 * H + j) : 0, s->hm, 2, j);
            a_n = a_n + reset * u;
            s->cells[j] = u;
        } else {
            a_n = REFERENCE(plus_u)(s, a_n, gated, 2, j);
        }
        real n = TANH(a_n);
        s->h[j] = (1 - z) * n + z * REFERENCE(h_before)(s, j);
        s->gates[2 * H + j] = n;
    }
}

static void REFERENCE(forward)(const mg_kernels *k, const mg_recurrent *r) {
    size_t B = r->B, H = r->H;
    int has_c = k->cells[r->cell]->has_c;
    for (size_t i = 0; i < B * H; i++) {
        OUT(r->h_T, i) = r->h0 ? AT(r->h0, i) : 0;
        if (has_c) OUT(r->c_T, i) = r->c0 ? AT(r->c0, i) : 0;
    }
    for (size_t step = 0; step < r->T; step++)
        for (size_t b = 0; b < B; b++) {
            PLACE s = REFERENCE(place_of)(k, r, step, b);
            if (!REFERENCE(active)(r, s.t, b)) {
                memset(s.h, 0, H * sizeof(real));
                if (s.gates) memset(s.gates, 0, s.columns * sizeof(real));
                if (s.cells) memset(s.cells, 0, H * sizeof(real));
                continue;
            }
            switch (r->cell) {
            case mg_cell_rnn_tanh: REFERENCE(rnn)(&s, 0); break;
            case mg_cell_rnn_relu: REFERENCE(rnn)(&s, 1); break;
            case mg_cell_lstm: REFERENCE(lstm)(&s); break;
            case mg_cell_gru: REFERENCE(gru)(&s, 0); break;
            case mg_cell_gru_after: REFERENCE(gru)(&s, 1); break;
            default: abort();
            }
            for (size_t j = 0; j < H; j++) OUT(r->h_T, b * H + j) = s.h[j];
        }
}

/* ---- Backward ---- */

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

/* d = dh_t + dh_next */
static real REFERENCE(d)(const PLACE *s, const mg_recurrent_grads *g, size_t j) {
    return (g->dh ? AT(g->dh, s->now * s->H + j) : 0) + s->dh_next[j];
}

/* sum + da U^T for unit j, over the gates [first, end), whose da starts at vector `of`. */
static real REFERENCE(plus_ut)(const PLACE *s, real sum, size_t first, size_t end, size_t of,
                               size_t j) {
    for (size_t c = 0; c < (end - first) * s->H; c++)
        sum = FMA(s->da[of * s->H + c], AT(s->r->u, j * s->columns + first * s->H + c), sum);
    return sum;
}

static real REFERENCE(masked)(const PLACE *s, real sum, size_t j) {
    return s->r->mask ? sum * AT(s->r->mask, s->b * s->H + j) : sum;
}

static void REFERENCE(rnn_backward)(PLACE *s, const mg_recurrent_grads *g, int is_relu) {
    for (size_t j = 0; j < s->H; j++) {
        real d = REFERENCE(d)(s, g, j), h = s->h[j];
        if (is_relu) s->da[j] = h > 0 ? d : 0;
        else s->da[j] = REFERENCE(tanh_grad)(d, h);
    }
    for (size_t j = 0; j < s->H; j++)
        s->dh_next[j] = REFERENCE(masked)(s, REFERENCE(plus_ut)(s, 0, 0, 1, 0, j), j);
}

static void REFERENCE(lstm_backward)(PLACE *s, const mg_recurrent_grads *g) {
    size_t H = s->H;
    const real *p = s->r->p;
    for (size_t j = 0; j < H; j++) {
        real i = s->gates[j], f = s->gates[H + j], G = s->gates[2 * H + j];
        real o = s->gates[3 * H + j], c = s->cells[j], tanh_c = TANH(c);
        real c_before = REFERENCE(before)(s, s->r->cells, s->r->c0, j);
        real d = REFERENCE(d)(s, g, j);
        real dc = (g->dc ? AT(g->dc, s->now * H + j) : 0) + s->dc_next[j];
        real e = dc + REFERENCE(tanh_grad)(d * o, tanh_c);
        real da_o = REFERENCE(sigmoid_grad)(d * tanh_c, o);
        if (p) e = e + da_o * p[2 * H + j];
        real da_i = REFERENCE(sigmoid_grad)(e * G, i);
        real da_f = REFERENCE(sigmoid_grad)(e * c_before, f);
        real dc_next = e * f;
        if (p) dc_next = (dc_next + da_f * p[H + j]) + da_i * p[j];
        s->dc_next[j] = dc_next;
        s->da[j] = da_i;
        s->da[H + j] = da_f;
        s->da[2 * H + j] = REFERENCE(tanh_grad)(e * i, G);
        s->da[3 * H + j] = da_o;
        const real dp[3] = {da_i * c_before, da_f * c_before, da_o * c};
        for (size_t q = 0; q < 3 && g->dp; q++)
            REFERENCE(add_to_sum)(&OUT(g->dp, q * H + j), g->dp_low + q * H + j, dp[q]);
    }
    for (size_t j = 0; j < H; j++)
        s->dh_next[j] = REFERENCE(masked)(s, REFERENCE(plus_ut)(s, 0, 0, 4, 0, j), j);
}

static void REFERENCE(gru_backward)(PLACE *s, const mg_recurrent_grads *g, int after) {
    size_t H = s->H;
    real direct[300], vr[300];
    for (size_t j = 0; j < H; j++) {
        real reset = s->gates[j], z = s->gates[H + j], n = s->gates[2 * H + j];
        real d = REFERENCE(d)(s, g, j), h = REFERENCE(h_before)(s, j);
        s->da[2 * H + j] = REFERENCE(tanh_grad)(d * (1 - z), n);
        s->da[H + j] = REFERENCE(sigmoid_grad)(d * h - d * n, z);
        direct[j] = d * z;
        s->gated[j] = reset * s->hm[j];
    }
    for (size_t j = 0; j < H; j++) {
        real reset = s->gates[j], da_n = s->da[2 * H + j];
        real v = after ? 0 : REFERENCE(plus_ut)(s, 0, 2, 3, 2, j);
        real dr = after ? da_n * s->cells[j] : v * s->hm[j];
        s->da[j] = REFERENCE(sigmoid_grad)(dr, reset);
        if (after) s->da[3 * H + j] = da_n * reset;
        vr[j] = v * reset;
    }
    for (size_t j = 0; j < H; j++) {
        /* Where the chain begins: with a mask d * z is added after it. */
        real chain = after ? 0 : vr[j];
        if (!s->r->mask) chain = after ? direct[j] : direct[j] + vr[j];
        chain = REFERENCE(plus_ut)(s, chain, 0, 2, 0, j);
        if (after) chain = REFERENCE(plus_ut)(s, chain, 2, 3, 3, j);
        s->dh_next[j] = s->r->mask ? direct[j] + REFERENCE(masked)(s, chain, j) : chain;
    }
}

/* dx, dW, dU and db from da. */
static void REFERENCE(weights)(const PLACE *s, const mg_recurrent_grads *g) {
    const mg_recurrent *r = s->r;
    const mg_cell_kind *kind = s->k->cells[r->cell];
    size_t I = r->I, H = s->H, columns = s->columns;
    int has_u = kind->biases > kind->gates;
    for (size_t i = 0; i < I; i++) {
        real x = AT(r->x, s->now * I + i), sum = 0;
        for (size_t c = 0; c < columns; c++) sum = FMA(s->da[c], AT(r->w, i * columns + c), sum);
        OUT(g->dx, s->now * I + i) = sum;
        for (size_t c = 0; c < columns; c++)
            OUT(g->dw, i * columns + c) = FMA(x, s->da[c], OUT(g->dw, i * columns + c));
    }
    for (size_t i = 0; i < H; i++)
        for (size_t c = 0; c < columns; c++) {
            int of_n = columns == 3 * H && c >= 2 * H;
            real operand = of_n && !has_u ? s->gated[i] : s->hm[i];
            real da = of_n && has_u ? s->da[c + H] : s->da[c];
            OUT(g->du, i * columns + c) = FMA(operand, da, OUT(g->du, i * columns + c));
        }
    for (size_t c = 0; c < kind->biases * H && g->db; c++)
        REFERENCE(add_to_sum)(&OUT(g->db, c), g->db_low + c, s->da[c]);
}

static void REFERENCE(backward)(const mg_kernels *k, const mg_recurrent *r,
                                const mg_recurrent_grads *g) {
    size_t B = r->B, H = r->H;
    for (size_t i = 0; i < B * H; i++) {
        OUT(g->dh0, i) = g->dh_T ? AT(g->dh_T, i) : 0;
        OUT(g->dc0, i) = g->dc_T ? AT(g->dc_T, i) : 0;
    }
    memset(g->dx, 0, r->T * B * r->I * sizeof(real));
    for (size_t step = r->T; step-- > 0;)
        for (size_t b = 0; b < B; b++) {
            PLACE s = REFERENCE(place_of)(k, r, step, b);
            if (!REFERENCE(active)(r, s.t, b)) continue;
            s.dh_next = (real *)g->dh0 + b * H;
            s.dc_next = (real *)g->dc0 + b * H;
            switch (r->cell) {
            case mg_cell_rnn_tanh: REFERENCE(rnn_backward)(&s, g, 0); break;
            case mg_cell_rnn_relu: REFERENCE(rnn_backward)(&s, g, 1); break;
            case mg_cell_lstm: REFERENCE(lstm_backward)(&s, g); break;
            case mg_cell_gru: REFERENCE(gru_backward)(&s, g, 0); break;
            case mg_cell_gru_after: REFERENCE(gru_backward)(&s, g, 1); break;
            default: abort();
            }
            REFERENCE(weights)(&s, g);
            if (r->reset && r->reset[s.now]) {
                memset(s.dh_next, 0, H * sizeof(real));
                memset(s.dc_next, 0, H * sizeof(real));
            }
        }
}

#undef PLACE
#undef TANH
#undef SIGMOID
#undef AT
#undef OUT
