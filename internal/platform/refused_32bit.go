//go:build 386 || arm || armbe || mips || mipsle || mips64p32 || mips64p32le || amd64p32 || ppc || riscv || s390 || sparc

package platform

// A shard may map a terabyte, and offsets in files are ints where they index a mapping.
var _ = freyja_does_not_build_in_32_bits_because_a_store_is_mapped_into_memory_as_a_whole
