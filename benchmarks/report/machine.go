package report

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine is where the run took place. What the system does not tell is empty.
type Machine struct {
	OS, Arch    string
	Kernel      string
	CPU         string
	Cores       int
	MemoryBytes int64
	Caches      string
	HugePages   string // transparent huge pages: always, madvise or never
	FileSystem  string // of the store's folder
	LoadAverage string // when the run began: others' work on the machine
}

// ThisMachine describes the machine, and the file system that dir is on.
func ThisMachine(dir string) Machine {
	return Machine{
		OS:          runtime.GOOS,
		Arch:        runtime.GOARCH,
		Kernel:      readLine("/proc/sys/kernel/osrelease"),
		CPU:         procField("/proc/cpuinfo", "model name"),
		Cores:       runtime.NumCPU(),
		MemoryBytes: memoryBytes("MemTotal"),
		Caches:      caches(),
		HugePages:   chosen(readLine("/sys/kernel/mm/transparent_hugepage/enabled")),
		FileSystem:  fileSystem(dir),
		LoadAverage: readLine("/proc/loadavg"),
	}
}

// AvailableMemory is how many bytes the system can give without swapping, 0 if it does not tell.
func AvailableMemory() int64 { return memoryBytes("MemAvailable") }

// BusyTime is the processor time that the whole machine has used since it was started, summed over its
// cores, with what a hypervisor gave to other machines; 0 if the system does not tell.
func BusyTime() time.Duration {
	fields := strings.Fields(readLine("/proc/stat")) // "cpu user nice system idle iowait irq softirq steal guest ..."
	if len(fields) < 9 {
		return 0
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every architecture that Go knows
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// procField returns the first value of a "name : value" line.
func procField(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func memoryBytes(name string) int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", name), " kB"), 10, 64)
	return kib << 10
}

func caches() string {
	var list []string
	folders, _ := filepath.Glob("/sys/devices/system/cpu/cpu0/cache/index*")
	for _, folder := range folders {
		if kind := readLine(folder + "/type"); kind != "Instruction" {
			list = append(list, "L"+readLine(folder+"/level")+" "+readLine(folder+"/size"))
		}
	}
	return strings.Join(list, ", ")
}

// chosen returns the word in brackets, as in "always [madvise] never".
func chosen(line string) string {
	_, rest, _ := strings.Cut(line, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// fileSystem returns the type of the mount that holds dir.
func fileSystem(dir string) string {
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return ""
	}
	var longest, kind string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(longest) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			longest, kind = f[1], f[2]
		}
	}
	return kind
}
