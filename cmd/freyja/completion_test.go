package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a shell's completion script asks the tool, and what it gets: words, and what else there may be,
// :4 for nothing, :16 for folders, :0 for files.
func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"never\nperiodic\nalways\n:4\n", []string{"import", "--durability", ""}},
		{"never\nperiodic\nalways\n:4\n", []string{"bench", "--durability", ""}},
		{"auto\njson\njsonl\ntsv\n:4\n", []string{"import", "--format", ""}},
		{"raw\nhex\nbase64\n:4\n", []string{"get", "--key-encoding", ""}},
		{"raw\nhex\nbase64\n:4\n", []string{"export", "--key-encoding", ""}},
		{"raw\nquoted\nhex\nbase64\n:4\n", []string{"scan", "--encoding", ""}},
		{":16\n", []string{"get", "--dir", ""}},
		{":0\n", []string{"del", "--keys-from", ""}},
		{":0\n", []string{"import", ""}},
		{":0\n", []string{"export", ""}},
		{":0\n", []string{"backup", ""}},
		{":0\n", []string{"restore", ""}},
		{":4\n", []string{"get", ""}},
		{":4\n", []string{"put", "key", ""}},
		{":4\n", []string{"del", ""}},
		{":4\n", []string{"stat", ""}},
		{"repair\tTake out what is damaged, so that the store opens\nrestore\tMake a store from a backup\n:4\n", []string{"re"}},
	} {
		got := run(t, t.TempDir(), "", append([]string{"__complete"}, c.args...)...)
		require.Equal(t, exitOK, got.code, "%q: %s", c.args, got.stderr)
		require.ElementsMatch(t, sortedLines(c.want), sortedLines(got.stdout), "%q", c.args)
	}
}
