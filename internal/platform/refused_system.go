//go:build !(linux || darwin || windows) || android || ios

package platform

// What is on disk after which call is known of these three alone.
var _ = freyja_builds_for_linux_darwin_and_windows_only_because_what_reaches_the_disk_is_not_known_of_this_system
