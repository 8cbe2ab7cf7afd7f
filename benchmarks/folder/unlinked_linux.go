package folder

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Unlinked returns the bytes of the files below dir that have been removed while this process has them mapped:
// the file system gets them back when the last mapping ends, and neither ls nor du shows them until then.
// known is false where the system does not tell.
func Unlinked(dir string) (bytes int64, known bool, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return 0, false, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return 0, false, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	ends := make(map[string]int64) // by device and inode, since a file may be mapped more than once
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		file, end, ok := unlinkedMapping(lines.Text(), dir)
		if ok {
			ends[file] = max(ends[file], end)
		}
	}
	for _, end := range ends {
		bytes += end
	}
	return bytes, true, lines.Err()
}

// unlinkedMapping reads a line of /proc/self/maps:
//
//	address           perms offset  dev   inode      path
//	7f12a0000-7f12b0000 r--s 00000000 fe:00 1234     /folder/file (deleted)
//
// ok is false unless it maps a removed file below dir. end is where in the file the mapping ends.
func unlinkedMapping(line, dir string) (file string, end int64, ok bool) {
	path, deleted := strings.CutSuffix(line, " (deleted)")
	if at := strings.IndexByte(path, '/'); !deleted || at < 0 || !strings.HasPrefix(path[at:], dir+"/") {
		return "", 0, false
	}
	fields := strings.Fields(line)
	first, last, _ := strings.Cut(fields[0], "-")
	var numbers [3]int64
	for i, text := range []string{first, last, fields[2]} {
		n, err := strconv.ParseInt(text, 16, 64)
		if err != nil {
			return "", 0, false
		}
		numbers[i] = n
	}
	return fmt.Sprint(fields[3], " ", fields[4]), numbers[2] + numbers[1] - numbers[0], true
}
