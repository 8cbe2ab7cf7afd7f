package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func contents(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestOutputIsComplete(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o600))
	require.NoError(t, os.WriteFile(path+tmpSuffix, []byte("left by a run that was killed"), 0o600))

	for _, complete := range []bool{false, true} {
		o, err := new(app).openOutput(path)
		require.NoError(t, err)
		_, err = o.Write(bytes.Repeat([]byte("x"), 3*outputBuffer))
		require.NoError(t, err)
		require.Equal(t, "before", contents(t, path))
		if complete {
			require.NoError(t, o.commit())
		}
		o.discard()
		require.Equal(t, []string{"out"}, folder(t, dir))
	}
	require.Len(t, contents(t, path), 3*outputBuffer)
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.EqualValues(t, 0o600, info.Mode().Perm(), "a private file became a public one")
	}
}

// Of two runs that write the same file at the same time the second wins, and the first says so.
func TestOutputsToOneFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	first, err := new(app).openOutput(path)
	require.NoError(t, err)
	second, err := new(app).openOutput(path)
	if err != nil {
		first.discard()
		t.Skipf("this system does not remove files that are open: %v", err)
	}
	for _, o := range []*output{first, second} {
		_, err := io.WriteString(o, map[*output]string{first: "first", second: "second"}[o])
		require.NoError(t, err)
	}
	require.ErrorContains(t, first.commit(), "another process")
	first.discard()
	require.NoError(t, second.commit())
	second.discard()
	require.Equal(t, "second", contents(t, path))
	require.Equal(t, []string{"out"}, folder(t, dir))
}

func TestOutputPaths(t *testing.T) {
	dir := t.TempDir()
	_, err := new(app).openOutput(dir)
	require.Equal(t, exitUsage, exitCode(err), err)
	_, err = new(app).openOutput(os.DevNull)
	require.Equal(t, exitUsage, exitCode(err), err)
	_, err = new(app).openOutput(filepath.Join(dir, "missing", "out"))
	require.Equal(t, exitStore, exitCode(err), err)

	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	if os.Symlink("target", link) != nil { // on Windows it takes a privilege
		return
	}
	o, err := new(app).openOutput(link)
	require.NoError(t, err)
	_, err = io.WriteString(o, "through the link")
	require.NoError(t, err)
	require.NoError(t, o.commit())
	require.Equal(t, "through the link", contents(t, target))
	require.Equal(t, []string{"link", "target"}, folder(t, dir))
}

func TestOutputToStandardOutput(t *testing.T) {
	var stdout bytes.Buffer
	o, err := (&app{stdout: &stdout}).openOutput("-")
	require.NoError(t, err)
	defer o.discard()
	_, err = io.WriteString(o, "text")
	require.NoError(t, err)
	require.NoError(t, o.commit())
	require.Equal(t, "text", stdout.String())
}
