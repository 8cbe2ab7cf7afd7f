//go:build linux

package powerloss

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"unsafe"
)

// entry is a name in a folder.
type entry struct {
	name   string
	id     uint64 // inode
	folder bool
}

// readFolder lists the files and folders in a folder. os.ReadDir has no inodes, and asking for each file's
// would be most of the cost of a simulation.
func readFolder(path string) (list []entry, err error) {
	folder, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(folder)
	buffer := make([]byte, 8<<10)
	for {
		n, err := syscall.ReadDirent(folder, buffer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return list, err
		}
		for rest := buffer[:n]; len(rest) > 0; {
			e := (*syscall.Dirent)(unsafe.Pointer(unsafe.SliceData(rest)))
			record := rest[:e.Reclen]
			rest = rest[e.Reclen:]
			name := record[unsafe.Offsetof(e.Name):]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." && (e.Type == syscall.DT_REG || e.Type == syscall.DT_DIR) {
				list = append(list, entry{s, binary.NativeEndian.Uint64(record), e.Type == syscall.DT_DIR})
			}
		}
	}
}
