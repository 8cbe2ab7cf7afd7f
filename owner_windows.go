package freyja

import "os"

// isOthers: a file belongs there to whom the folder says.
func isOthers(os.FileInfo) bool { return false }

func giveToOwner(string, string) error { return nil }
