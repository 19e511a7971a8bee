// CRC-32C: the cyclic redundancy check of Castagnoli's polynomial (RFC 3720, appendix B.4 has test vectors).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__GNUC__) && defined(__x86_64__)
#define CONDIC_CRC32C_SSE42 1
#include <nmmintrin.h>
#endif

namespace condic {

using Crc32cTables = std::array<std::array<uint32_t, 256>, 8>;

// Table k is the effect of a byte that k further bytes follow.
constexpr Crc32cTables make_crc32c_tables() {
  Crc32cTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = crc >> 8 ^ tables[0][crc & 255];
    }
  }
  return tables;
}

// Eight bytes at a time by table ("slicing-by-8"). Works on the register, which is the complement of the CRC.
inline uint32_t crc32c_portable(uint32_t crc, const uint8_t* bytes, size_t size) {
  static constexpr Crc32cTables tables = make_crc32c_tables();
  for (; size >= 8; bytes += 8, size -= 8) {
    uint32_t next = 0;
    for (size_t i = 0; i < 8; ++i) {
      const uint8_t carried = i < 4 ? static_cast<uint8_t>(crc >> (8 * i)) : uint8_t{0};
      next ^= tables[7 - i][bytes[i] ^ carried];
    }
    crc = next;
  }
  for (; size > 0; ++bytes, --size) crc = crc >> 8 ^ tables[0][(crc ^ *bytes) & 255];
  return crc;
}

#ifdef CONDIC_CRC32C_SSE42
__attribute__((target("sse4.2"))) inline uint32_t crc32c_sse42(uint32_t crc, const uint8_t* bytes, size_t size) {
  uint64_t wide = crc;
  for (; size >= 8; bytes += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; ++bytes, --size) crc = _mm_crc32_u8(crc, *bytes);
  return crc;
}
#endif

// CRC of what `initial` is the CRC of, followed by `bytes`.
inline uint32_t crc32c(uint32_t initial, const uint8_t* bytes, size_t size) {
#ifdef CONDIC_CRC32C_SSE42
  if (__builtin_cpu_supports("sse4.2")) return ~crc32c_sse42(~initial, bytes, size);
#endif
  return ~crc32c_portable(~initial, bytes, size);
}

}  // namespace condic
