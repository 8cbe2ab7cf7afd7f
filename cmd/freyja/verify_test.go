package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

const recordsBegin = 4096 // offset in a segment (docs/format.md)

// damage flips a bit of value, which one record of the store in dir holds, and says where.
func damage(t *testing.T, dir, value string) (file string, at int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		if i := bytes.Index(b, []byte(value)); i >= 0 {
			require.Greater(t, i, recordsBegin)
			b[i] ^= 0x10
			require.NoError(t, os.WriteFile(file, b, 0o600))
			return file, int64(i)
		}
	}
	t.Fatalf("no segment of %d in %q holds %q", len(files), dir, value)
	return "", 0
}

// newDamaged makes a store of which one record is damaged, and gives the pairs that are not.
func newDamaged(t *testing.T) (dir, key, file string, at int64, sound map[string]string) {
	t.Helper()
	dir, key = t.TempDir(), "package-77"
	sound = samplePairs(300)
	sound[key] = "a value that no other key has"
	fill(t, dir, &freyja.Options{Shards: 2}, sound)
	file, at = damage(t, dir, sound[key])
	delete(sound, key)
	return dir, key, file, at, sound
}

// requireNamed checks that text names the record around byte at of file, by its offset.
func requireNamed(t *testing.T, text, file string, at int64) {
	t.Helper()
	require.Contains(t, text, filepath.Base(file))
	for _, m := range regexp.MustCompile(`offset (\d+)`).FindAllStringSubmatch(text, -1) {
		offset, err := strconv.ParseInt(m[1], 10, 64)
		require.NoError(t, err)
		if offset <= at && at-offset < 128 {
			return
		}
	}
	t.Fatalf("no offset a little before %d: %s", at, text)
}

func TestVerifySound(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, nil, samplePairs(300))
	got := requireOutcome(t, dir, exitOK, "", "verify")
	require.Regexp(t, `^verified  .*: 300 records \(.*\) in \d+ segments are sound; read in .* s\n$`, got.stdout)
	require.Empty(t, got.stderr)

	var report verifyReport
	decode(t, requireOutcome(t, dir, exitOK, "", "verify", "--json").stdout, &report)
	require.True(t, report.Sound)
	require.NotNil(t, report.Damages)
	require.EqualValues(t, 300, report.Records)
	require.Equal(t, dir, report.Dir)
}

// decode reads what --json printed, all of it.
func decode(t *testing.T, text string, report any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(report), "%q", text)
	require.False(t, decoder.More())
}

func TestVerifyDamaged(t *testing.T) {
	dir, key, file, at, _ := newDamaged(t)
	before := contents(t, file)
	got := runProcess(t, dir, "", "verify")
	require.Equal(t, exitStore, got.code, got)
	requireNamed(t, got.stdout+got.stderr, file, at)
	require.Contains(t, got.stderr, "freyja repair")
	require.Equal(t, 1, strings.Count(got.stderr, "freyja: "), got.stderr)

	var report verifyReport
	decode(t, requireOutcome(t, dir, exitStore, "freyja repair", "verify", "--json").stdout, &report)
	require.False(t, report.Sound)
	if report.OpenError != "" {
		requireNamed(t, report.OpenError, file, at)
	} else {
		require.Len(t, report.Damages, 1)
		d := report.Damages[0]
		require.Equal(t, filepath.Base(file), filepath.Base(d.File))
		require.LessOrEqual(t, d.Offset, at)
		require.Greater(t, d.Offset+d.Bytes, at)
		require.Equal(t, key, d.Key)
		require.NotEmpty(t, d.Reason)
	}
	require.Equal(t, before, contents(t, file), "verify changed a file")
}

func TestRepair(t *testing.T) {
	dir, _, file, at, sound := newDamaged(t)
	got := runProcess(t, dir, "", "repair")
	require.Equal(t, exitOK, got.code, got.stderr)
	requireNamed(t, got.stdout, file, at)
	require.Contains(t, got.stdout, "1 damaged place taken out")
	kept := regexp.MustCompile(`(?m)^kept in   (.+)$`).FindStringSubmatch(got.stdout)
	require.NotNil(t, kept, got.stdout)
	if !filepath.IsAbs(kept[1]) {
		kept[1] = filepath.Join(dir, kept[1])
	}
	require.FileExists(t, kept[1])

	require.Equal(t, exitOK, runProcess(t, dir, "", "verify").code)
	requireStore(t, dir, sound)
	again := requireOutcome(t, dir, exitOK, "", "repair").stdout
	require.Contains(t, again, "nothing was damaged")
	requireStore(t, dir, sound)
}

func TestRepairJSON(t *testing.T) {
	dir, key, file, _, sound := newDamaged(t)
	var report repairReport
	decode(t, requireOutcome(t, dir, exitOK, "", "repair", "--json").stdout, &report)
	require.Len(t, report.Damages, 1)
	require.Equal(t, filepath.Base(file), filepath.Base(report.Damages[0].File))
	require.Equal(t, key, report.Damages[0].Key)
	require.NotEmpty(t, report.Quarantined)
	require.EqualValues(t, len(sound), report.Records)
	require.Positive(t, report.Bytes)
	requireOutcome(t, dir, exitOK, "", "verify")
}

// Damage that keeps the store from opening has the same advice with every command but repair.
func TestAdviceToRepair(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, nil, map[string]string{"a": "1"})
	path := filepath.Join(dir, "MANIFEST")
	manifest := []byte(contents(t, path))
	manifest[len(manifest)-1] ^= 1
	require.NoError(t, os.WriteFile(path, manifest, 0o600))
	for _, args := range [][]string{{"get", "a"}, {"stat"}, {"verify"}, {"put", "a", "2"}, {"scan"}} {
		got := requireOutcome(t, dir, exitStore, "MANIFEST", args...)
		require.Contains(t, got.stderr, "freyja repair", "%q", args)
	}
	var report verifyReport
	decode(t, requireOutcome(t, dir, exitStore, "freyja repair", "verify", "--json").stdout, &report)
	require.Contains(t, report.OpenError, "MANIFEST")
	require.NotContains(t, run(t, dir, "", "repair").stderr, "freyja repair")
}

func TestDamageInWords(t *testing.T) {
	damages := []freyja.Damage{
		{Shard: 3, File: "data/003-00000001.seg", Offset: 4096, Bytes: 144, Key: []byte("key \xff"), Reason: "the checksum differs"},
		{Shard: -1, File: "data/MANIFEST", Offset: 12, Reason: "cut short"},
	}
	var text bytes.Buffer
	require.NoError(t, writeVerified(&text, "data", freyja.VerifyReport{Damages: damages, Segments: 2, Records: 5, Bytes: 700, Duration: 1230 * time.Millisecond}))
	require.Equal(t, `damaged   data/003-00000001.seg: offset 4096, 144 bytes, key "key \xff": the checksum differs
damaged   data/MANIFEST: offset 12, up to an unknown end: cut short
verified  data: 5 records (700 B) in 2 segments are sound; read in 1.23 s
`, text.String())

	text.Reset()
	require.NoError(t, writeRepaired(&text, "data", freyja.RepairReport{Damages: damages[:1], Quarantined: []string{"data/quarantine/x"}, Segments: 2, Records: 4, Bytes: 600}))
	require.Equal(t, `damaged   data/003-00000001.seg: offset 4096, 144 bytes, key "key \xff": the checksum differs
kept in   data/quarantine/x
repaired  data: 1 damaged place taken out; 4 records (600 B) in 2 segments are sound; took 0.00 s
`, text.String())

	text.Reset()
	require.NoError(t, writeRepaired(&text, "data", freyja.RepairReport{}))
	require.Equal(t, "repaired  data: nothing was damaged; 0 records (0 B) in 0 segments are sound; took 0.00 s\n", text.String())
	require.Equal(t, "2 damaged places", places(damages))

	require.JSONEq(t, `[{"shard":3,"file":"data/003-00000001.seg","offset":4096,"bytes":144,"key_base64":"a2V5IP8=","reason":"the checksum differs"},
		{"shard":-1,"file":"data/MANIFEST","offset":12,"bytes":0,"reason":"cut short"}]`, asJSON(t, newDamageReports(damages)))
	require.JSONEq(t, `{"dir":"d","sound":true,"segments":0,"records":0,"bytes":0,"damages":[],"seconds":0}`,
		asJSON(t, newVerifyReport("d", freyja.VerifyReport{})))
	require.JSONEq(t, `{"dir":"d","damages":[],"quarantined":[],"segments":0,"records":0,"bytes":0,"seconds":0}`,
		asJSON(t, newRepairReport("d", freyja.RepairReport{})))
	require.False(t, newVerifyReport("d", freyja.VerifyReport{Damages: damages}).Sound)
}
