package shard

import "github.com/freyjadb/freyja/internal/probe"

// The rare paths of a shard. Package probe says who looks at them.
var (
	probeStaleView     = probe.New("read: a stale view was loaded again")
	probeNumberAgain   = probe.New("segments: a number was given out again")
	probeMutexes       = probe.New("mutexes: all were taken one after the other, as trying did not get them")
	probeSpaceWait     = probe.New("space: a writer waited for compaction")
	probeOvertaken     = probe.New("compaction: a record was overwritten while it was copied")
	probeDeleteKept    = probe.New("compaction: a delete was kept for an older record")
	probeSettle        = probe.New("sync: the part of a batch in another shard went to disk first")
	probeCut           = probe.New("recovery: the end of a log was cut")
	probeBatchCut      = probe.New("recovery: a batch was cut, as another shard lacks its part")
	probeSecondPass    = probe.New("recovery: cutting a batch cut another one")
	probeCollide       = probe.New("recovery: records of one hash were told apart by their keys")
	probeNewerByRecord = probe.New("recovery: a record was read to tell which of two is newer")
	probePageVerified  = probe.New("read: a page was verified when it was first read")
	probeDirect        = probe.New("journal: a commit went without it")
	probeTurn          = probe.New("journal: the other file was taken")
)
