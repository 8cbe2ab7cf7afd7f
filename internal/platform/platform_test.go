package platform

import (
	"go/build"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// filesFor are the files of a folder that are built for a platform, and what they import.
func filesFor(t *testing.T, platform, dir string) *build.Package {
	t.Helper()
	context := build.Default
	context.GOOS, context.GOARCH, _ = strings.Cut(platform, "/")
	context.CgoEnabled = false
	pkg, err := context.ImportDir(dir, 0)
	require.NoError(t, err, platform)
	return pkg
}

// TestPlatforms: nothing but the comment is built where the library is supported, and elsewhere a file that does not build,
// for each reason that there is. (scripts/test.sh builds for some of them.)
func TestPlatforms(t *testing.T) {
	const bits, system, processor = "refused_32bit.go", "refused_system.go", "refused_processor.go"
	for platform, refused := range map[string][]string{
		"linux/amd64": nil, "linux/arm64": nil, "darwin/amd64": nil, "darwin/arm64": nil, "windows/amd64": nil, "windows/arm64": nil,
		"linux/386": {bits}, "linux/arm": {bits}, "linux/mipsle": {bits}, "windows/386": {bits}, "android/arm": {bits, system},
		"freebsd/amd64": {system}, "netbsd/arm64": {system}, "openbsd/386": {bits, system}, "dragonfly/amd64": {system},
		"solaris/amd64": {system}, "illumos/amd64": {system}, "aix/ppc64": {processor, system}, "android/arm64": {system},
		"ios/arm64": {system}, "js/wasm": {processor, system}, "wasip1/wasm": {processor, system}, "plan9/amd64": {system},
		"linux/riscv64": {processor}, "linux/s390x": {processor}, "linux/ppc64le": {processor}, "linux/loong64": {processor},
	} {
		files := filesFor(t, platform, ".").GoFiles
		require.ElementsMatch(t, append(slices.Clone(refused), "platform.go"), files, platform)
	}
	for _, file := range []string{bits, system, processor} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(text), "\nvar _ = freyja_", "the sentence that the compiler prints")
	}
}

// TestPlatformIsImported: what depends on the platform fails after this package, so that its sentence is what is seen.
func TestPlatformIsImported(t *testing.T) {
	for _, dir := range []string{"../../mmapio", "../../hashidx", "../goid"} {
		for _, platform := range []string{"linux/amd64", "freebsd/386", "js/wasm"} {
			require.Contains(t, filesFor(t, platform, dir).Imports, "github.com/freyjadb/freyja/internal/platform", dir)
		}
	}
}
