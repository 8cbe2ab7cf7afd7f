#include "textflag.h"

// func Current() uintptr
TEXT ·Current(SB), NOSPLIT, $0-8
	MOVQ TLS, CX
	MOVQ 0(CX)(TLS*1), AX // the runtime's descriptor of this goroutine
	MOVQ AX, ret+0(FP)
	RET
