//go:build race

package cache

// raceEnabled: the race detector is on, which makes everything slow and allocates.
const raceEnabled = true
