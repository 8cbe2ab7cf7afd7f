//go:build !(amd64 || arm64) && !(386 || arm || armbe || mips || mipsle || mips64p32 || mips64p32le || amd64p32 || ppc || riscv || s390 || sparc)

package platform

// Hint files and saved indexes are in the machine's byte order, and internal/goid is in assembly.
var _ = freyja_builds_for_amd64_and_arm64_only_because_it_was_tested_on_no_other_processor
