/* The header stands alone, and its numbers fit into the preprocessor. */
#include "memkv_protocol.h"

#if MEMKV_PROTOCOL_VERSION < 1 || MEMKV_FRAME_HEADER_SIZE_BYTES != 64 || MEMKV_OPERATION_PING != 14
#error "the numbers are wrong"
#endif

uint64_t memkv_manifest_magic(void);
uint64_t memkv_manifest_magic(void) { return MEMKV_MANIFEST_MAGIC + MEMKV_STATUS_INTERNAL; }
