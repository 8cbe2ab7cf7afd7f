package hashidx

import "github.com/freyjadb/freyja/internal/probe"

// The rare paths of an index. Package probe says who looks at them.
var (
	probePageCopied = probe.New("index: a page was copied under a snapshot")
	probeFolded     = probe.New("index: copied pages were folded back")
	probeOutweighed = probe.New("index: a table was built anew as copied pages outweighed it")
)
