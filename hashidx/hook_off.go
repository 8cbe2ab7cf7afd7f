//go:build !freyja_hooks

package hashidx

// hooked is whether beforeLoad is called. It is a constant, so without the tag nothing is left of the call.
const hooked = false

func beforeLoad() {}
