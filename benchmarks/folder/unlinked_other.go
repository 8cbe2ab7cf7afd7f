//go:build !linux

package folder

// Unlinked returns the bytes of the files below dir that have been removed while this process has them mapped:
// the file system gets them back when the last mapping ends, and neither ls nor du shows them until then.
// known is false where the system does not tell.
func Unlinked(string) (bytes int64, known bool, err error) { return 0, false, nil }
