package main

// op is something that is counted, and the kinds of entries in a history.
type op int

const (
	opPut op = iota
	opPutTTL
	opPutIfAbsent
	opCompareAndSwap
	opUpdate
	opDelete
	opApply
	opGet
	opAppendGet
	opView
	opGetMany
	opHas
	opLen
	opScan
	opAll
	opSnapshot
	opSnapGet
	opSnapAppendGet
	opSnapView
	opSnapGetMany
	opSnapHas
	opSnapLen
	opSnapScan
	opSnapAll
	opSnapClose
	opSync
	opCompact
	opVerify
	opBackup
	opRestore
	opStats
	opUsage
	opOpen
	opOpenReadOnly
	opClose
	opRepair
	operations // how many there are; what follows are counts of other things

	countAcked = iota - 1
	countReads
	countRefused
	countChecked
	countWindows
	countWindowCalls
	countInconclusive
	countCutWindows
	countUnderLoad
	countAfterKill
	countInFlight
	countCompactions
	countCompacted
	countCollections
	countProbes // of package probe, by its order
	counters    = countProbes + maxProbes
)

// maxProbes is how many probes there may be.
const maxProbes = 64

var opNames = [operations]string{
	"Put", "PutTTL", "PutIfAbsent", "CompareAndSwap", "Update", "Delete", "Apply",
	"Get", "AppendGet", "View", "GetMany", "Has", "Len", "Scan", "All",
	"Snapshot", "Snapshot.Get", "Snapshot.AppendGet", "Snapshot.View", "Snapshot.GetMany", "Snapshot.Has",
	"Snapshot.Len", "Snapshot.Scan", "Snapshot.All", "Snapshot.Close",
	"Sync", "Compact", "Verify", "Backup", "Restore", "Stats", "Usage", "Open", "Open read-only", "Close", "Repair",
}

func (o op) String() string {
	if o >= 0 && o < operations {
		return opNames[o]
	}
	return "other"
}
