/* What Cython cannot say: streaming stores, the fence between them and other threads, prefetch.
   Everything is static: this header is compiled once per target. */
#ifndef FASTBN_SIMD_H
#define FASTBN_SIMD_H

#include <string.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#define FASTBN_X86 1
#endif

#define FASTBN_LINE 64  /* bytes of a cache line */

/* dst[0:bytes] = src[0:bytes] past the caches; whole lines, dst aligned to one. */
static inline void fastbn_stream_lines(void *dst, const void *src, size_t bytes)
{
    char *d = (char *)dst;
    const char *s = (const char *)src;
#if defined(__AVX512F__)
    for (size_t i = 0; i < bytes; i += 64)
        _mm512_stream_si512((__m512i *)(d + i), _mm512_loadu_si512(s + i));
#elif defined(__AVX__)
    for (size_t i = 0; i < bytes; i += 32)
        _mm256_stream_si256((__m256i *)(d + i), _mm256_loadu_si256((const __m256i *)(s + i)));
#elif defined(FASTBN_X86)
    for (size_t i = 0; i < bytes; i += 16)
        _mm_stream_si128((__m128i *)(d + i), _mm_loadu_si128((const __m128i *)(s + i)));
#else
    memcpy(d, s, bytes);
#endif
}

/* Streamed lines become visible to other threads. */
static inline void fastbn_stream_fence(void)
{
#if defined(FASTBN_X86)
    _mm_sfence();
#endif
}

/* Lines of src[0:bytes] towards L2; any address will do, none faults. */
static inline void fastbn_prefetch_lines(const void *src, size_t bytes)
{
#if defined(__GNUC__)
    for (size_t i = 0; i < bytes; i += FASTBN_LINE)
        __builtin_prefetch((const char *)src + i, 0, 2);
#endif
}

#endif
