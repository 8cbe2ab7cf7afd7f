//go:build !race

package freyja

// raceEnabled: the race detector is on, which makes everything slow and allocates.
const raceEnabled = false
