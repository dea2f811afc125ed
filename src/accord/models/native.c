/* One decoding step of models/decoder.py on a CPU in f32: one more token in every live row of every pool.

   With few rows a step is bound by reading the weights once, so they lie as they are read: a matrix (in, out) is kept
   in panels (out / PANEL, in, PANEL), the last one filled up with zeros. A panel meets all rows while it is in the
   cache. One thread: a second pool of threads would fight with torch's.

   Every sum over `in` runs in one order whatever the number of rows, so a row's logits do not depend on its company.
   Nothing here may assume that numbers are finite: the NaN of a diverged model has to reach the logits. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* TILE rows by two vectors of sums, with the two of weights, are what the registers hold */
#if defined(__AVX512F__)
#define WIDTH 16
#define TILE 8
#else
#define WIDTH 8
#define TILE 4
#endif
#define PANEL (2 * WIDTH)
#define AHEAD 512 /* numbers of a panel that are asked of the memory before they are needed */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef float loose __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias)); /* a vec at any address */

/* The fields of these four are those of models/native.py. */

typedef struct {
    const float *panels, *bias; /* bias (out,), filled up as the panels are, or NULL */
    int64_t in, out;
} matrix;

typedef struct {
    matrix qkv, attention_out, gate_up, down;
    const float *query_norm, *key_norm; /* (size,) or NULL */
} block;

typedef struct {
    const block *blocks;
    matrix head;
    const float *final_norm, *rotation; /* (hidden,); cosine and sine (positions, size / 2, 2) */
    float *narrow, *wide, *scores; /* scratch: what enters a product, what leaves it, a row's attention; and a vec */
    int64_t layers, hidden, inner, heads, kv_heads, size;
    float eps, scaling;
} model;

typedef struct {
    float *cache; /* (layers, 2, slots, kv_heads, capacity, size) */
    const int64_t *lengths;
    int64_t slots, capacity, live;
} pool;

INLINE vec load(const float *from) { return *(const loose *)from; }
INLINE void store(float *to, vec what) { *(loose *)to = what; }

/* A loop over the lanes would be WIDTH additions, each waiting for the last. */
INLINE float total(vec lanes) {
    typedef float half __attribute__((vector_size(2 * WIDTH)));
    typedef float quarter __attribute__((vector_size(WIDTH)));
    union { vec whole; half halves[2]; } a = {lanes};
    union { half whole; quarter halves[2]; } b = {a.halves[0] + a.halves[1]};
    quarter last = b.halves[0] + b.halves[1];
    float sum = 0;
    for (int i = 0; i < WIDTH / 4; i++) sum += last[i];
    return sum;
}

INLINE float dot(const float *a, const float *b, int64_t size) {
    vec sum = {0};
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) sum += load(a + i) * load(b + i);
    float rest = 0;
    for (; i < size; i++) rest += a[i] * b[i];
    return total(sum) + rest;
}

INLINE vec choose(ints where, vec yes, vec no) { return (vec)((where & (ints)yes) | (~where & (ints)no)); }

/* e^x to 1e-7 of it: 2^n by its bits, Taylor's series on the rest, at most ln 2 / 2 */
INLINE vec exponential(vec x) {
    const vec least = (vec){0} - 87.0f, most = (vec){0} + 88.0f, one = (vec){0} + 1.0f;
    x = choose(x < least, least, x);
    x = choose(x > most, most, x); /* a NaN is neither, and stays */
    const float shift = 12582912.0f; /* 1.5 · 2^23: numbers of this size have no fraction */
    vec shifted = x * 1.44269504f + shift, n = shifted - shift;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first of few digits */
    vec series = r * (1.0f / 5040) + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    series = series * r + one;
    series = series * r + one;
    return series * (vec)(((ints)shifted + 127) << 23); /* the low bits of `shifted` are n */
}

/* One panel's columns of out (rows, w.out) = or += x (rows, w.in) w + bias. `rows` is a constant wherever this is
   inlined: only sums that no loop counts through stay in registers. */
INLINE void tile(const int rows, const matrix *w, int64_t first, const float *x, float *out, int add) {
    const float *panel = w->panels + first * w->in;
    vec sum[TILE][2];
#pragma GCC unroll 8
    for (int m = 0; m < rows; m++) sum[m][0] = sum[m][1] = (vec){0};
    for (int64_t k = 0; k < w->in; k++) {
        vec left = load(panel + k * PANEL), right = load(panel + k * PANEL + WIDTH);
        __builtin_prefetch(panel + k * PANEL + AHEAD);
        __builtin_prefetch(panel + k * PANEL + AHEAD + WIDTH);
#pragma GCC unroll 8
        for (int m = 0; m < rows; m++) {
            sum[m][0] += left * x[m * w->in + k];
            sum[m][1] += right * x[m * w->in + k];
        }
    }
    int64_t columns = w->out - first;
#pragma GCC unroll 8
    for (int m = 0; m < rows; m++) {
        float line[PANEL], *to = out + m * w->out + first;
        if (w->bias) sum[m][0] += load(w->bias + first), sum[m][1] += load(w->bias + first + WIDTH);
        if (columns >= PANEL) {
            store(to, add ? sum[m][0] + load(to) : sum[m][0]);
            store(to + WIDTH, add ? sum[m][1] + load(to + WIDTH) : sum[m][1]);
            continue;
        }
        store(line, sum[m][0]);
        store(line + WIDTH, sum[m][1]);
        for (int64_t c = 0; c < columns; c++) to[c] = line[c] + (add ? to[c] : 0.0f);
    }
}

static void product(const matrix *w, int64_t rows, const float *x, float *out, int add) {
    for (int64_t first = 0; first < w->out; first += PANEL)
        for (int64_t start = 0, tiles = (rows + TILE - 1) / TILE; tiles; tiles--) {
            int64_t count = (rows - start + tiles - 1) / tiles;
            const float *from = x + start * w->in;
            float *to = out + start * w->out;
            switch (count) {
            case 1: tile(1, w, first, from, to, add); break;
            case 2: tile(2, w, first, from, to, add); break;
            case 3: tile(3, w, first, from, to, add); break;
            case 4: tile(4, w, first, from, to, add); break;
#if TILE == 8
            case 5: tile(5, w, first, from, to, add); break;
            case 6: tile(6, w, first, from, to, add); break;
            case 7: tile(7, w, first, from, to, add); break;
            case 8: tile(8, w, first, from, to, add); break;
#endif
            }
            start += count;
        }
}

/* RMSNorm; `from` and `to` may be the same */
static void normalise(float *to, const float *from, const float *weight, int64_t size, float eps) {
    float scale = 1.0f / sqrtf(dot(from, from, size) / size + eps);
    for (int64_t i = 0; i < size; i++) to[i] = from[i] * scale * (weight ? weight[i] : 1.0f);
}

static void rotate(float *pairs, const float *rotation, int64_t size) {
    for (int64_t i = 0; i < size; i += 2) {
        float a = pairs[i], b = pairs[i + 1];
        pairs[i] = a * rotation[i] - b * rotation[i + 1];
        pairs[i + 1] = a * rotation[i + 1] + b * rotation[i];
    }
}

INLINE void prefetch(const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

/* out (count · WIDTH,) = Σ_t scores[t] values[t] / mass; `count` is a constant wherever this is inlined */
INLINE void weigh(const int count, const float *scores, const float *values, int64_t read, int64_t size, float mass,
                  float *out) {
    vec seen[4] = {0};
    for (int64_t t = 0; t < read; t++)
        for (int i = 0; i < count; i++) seen[i] += scores[t] * load(values + t * size + i * WIDTH);
    for (int i = 0; i < count; i++) store(out + i * WIDTH, seen[i] / mass);
}

/* out (size,) = what one query (size,) sees of `read` keys and values (read, size) */
static void see(const model *m, const float *query, const float *keys, const float *values, int64_t read, float *out) {
    float *scores = m->scores, highest = -INFINITY, mass = 0;
    int64_t size = m->size, i = 0, t = 0;
    for (int64_t t = 0; t < read; t++) {
        prefetch(values + t * size, size);
        scores[t] = m->scaling * dot(query, keys + t * size, size);
        if (scores[t] > highest) highest = scores[t];
    }
    for (; t < read; t += WIDTH) store(scores + t, exponential(load(scores + t) - highest));
    vec lanes = {0};
    for (t = 0; t + WIDTH <= read; t += WIDTH) lanes += load(scores + t);
    for (; t < read; t++) mass += scores[t];
    mass += total(lanes);
    for (; i + 4 * WIDTH <= size; i += 4 * WIDTH) weigh(4, scores, values + i, read, size, mass, out + i);
    for (; i + 2 * WIDTH <= size; i += 2 * WIDTH) weigh(2, scores, values + i, read, size, mass, out + i);
    for (; i + WIDTH <= size; i += WIDTH) weigh(1, scores, values + i, read, size, mass, out + i);
    for (; i < size; i++) {
        float seen = 0;
        for (int64_t t = 0; t < read; t++) seen += scores[t] * values[t * size + i];
        out[i] = seen / mass;
    }
}

/* Write one row's key and value into its slot, and attend: mixed (heads + 2 kv_heads, size) → out (heads, size) */
static void attend(const model *m, int64_t layer, const pool *p, int64_t slot, float *mixed, float *out) {
    const block *b = m->blocks + layer;
    int64_t size = m->size, length = p->lengths[slot], group = m->heads / m->kv_heads;
    int64_t apart = p->slots * m->kv_heads * p->capacity * size; /* from a layer's keys to its values */
    for (int64_t h = 0; h < m->heads + m->kv_heads; h++) {
        const float *norm = h < m->heads ? b->query_norm : b->key_norm;
        if (norm) normalise(mixed + h * size, mixed + h * size, norm, size, m->eps);
        rotate(mixed + h * size, m->rotation + length * size, size);
    }
    for (int64_t h = 0; h < m->kv_heads; h++) {
        float *keys = p->cache + 2 * layer * apart + (slot * m->kv_heads + h) * p->capacity * size;
        float *values = keys + apart;
        memcpy(keys + length * size, mixed + (m->heads + h) * size, size * sizeof *keys);
        memcpy(values + length * size, mixed + (m->heads + m->kv_heads + h) * size, size * sizeof *values);
        for (int64_t q = h * group; q < (h + 1) * group; q++)
            see(m, mixed + q * size, keys, values, length + 1, out + q * size);
    }
}

int64_t panel(void) { return PANEL; }

/* x (rows, hidden), the embedded tokens, pool by pool, is used up; logits (rows, head.out).
   Returns a row that has no room for one more token, or -1; then nothing is written. */
int64_t step(const model *m, const pool *pools, int64_t count, float *x, float *logits) {
    int64_t rows = 0, inner = m->inner;
    for (const pool *p = pools; p < pools + count; p++)
        for (int64_t slot = 0; slot < p->live; slot++, rows++)
            if (p->lengths[slot] >= p->capacity) return rows;
    for (int64_t layer = 0; layer < m->layers; layer++) {
        const block *b = m->blocks + layer;
        for (int64_t r = 0; r < rows; r++)
            normalise(m->narrow + r * m->hidden, x + r * m->hidden, NULL, m->hidden, m->eps);
        product(&b->qkv, rows, m->narrow, m->wide, 0);
        float *mixed = m->wide, *seen = m->narrow;
        for (const pool *p = pools; p < pools + count; p++)
            for (int64_t slot = 0; slot < p->live; slot++, mixed += b->qkv.out, seen += b->attention_out.in)
                attend(m, layer, p, slot, mixed, seen);
        product(&b->attention_out, rows, m->narrow, x, 1);
        for (int64_t r = 0; r < rows; r++)
            normalise(m->narrow + r * m->hidden, x + r * m->hidden, NULL, m->hidden, m->eps);
        product(&b->gate_up, rows, m->narrow, m->wide, 0);
        for (int64_t r = 0; r < rows; r++) {
            const float *from = m->wide + 2 * r * inner;
            for (int64_t i = 0; i < inner; i += WIDTH) { /* what is written behind a row is the next one's, or no one's */
                vec gate = load(from + i), up = load(from + inner + i);
                store(m->narrow + r * inner + i, gate / (1.0f + exponential(-gate)) * up);
            }
        }
        product(&b->down, rows, m->narrow, x, 1);
    }
    for (int64_t r = 0; r < rows; r++)
        normalise(m->narrow + r * m->hidden, x + r * m->hidden, m->final_norm, m->hidden, m->eps);
    product(&m->head, rows, m->narrow, logits, 0);
    return -1;
}
