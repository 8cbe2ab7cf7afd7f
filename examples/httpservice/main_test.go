package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/metrics"
)

// asProgram makes the test binary the program itself, for a process that can be sent signals.
const asProgram = "FREYJA_EXAMPLE_HTTPSERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is the program, running.
type process struct {
	cmd    *exec.Cmd
	url    string
	addr   string
	stderr bytes.Buffer
}

func start(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], "--dir", dir)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	p.url = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	p.addr = strings.TrimPrefix(p.url, "http://")
	return p
}

// terminate sends SIGTERM; wait expects the process to end well.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
}

func (p *process) wait(t *testing.T) {
	t.Helper()
	err := p.cmd.Wait() // before stderr is read
	require.NoError(t, err, p.stderr.String())
	require.NotContains(t, p.stderr.String(), "level=ERROR")
}

// request makes a request and returns the answer and its body.
func request(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(got)
}

// inProcess runs the program in this process, where there are no signals to send: its context ends instead.
func inProcess(t *testing.T, dir string) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--dir", dir, "--max-body", "1000"}, writer, t.Output())
		_ = writer.Close()
		ended <- err
	}()
	line, err := bufio.NewReader(reader).ReadString('\n')
	require.NoError(t, err)
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return strings.TrimSpace(strings.TrimPrefix(line, "listening on ")), stop
}

func TestDocuments(t *testing.T) {
	dir := t.TempDir()
	url, stop := inProcess(t, dir)
	doc := url + "/docs/user/1"

	res, _ := request(t, "GET", doc, "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	res, _ = request(t, "PUT", doc, `{"name": "Sif", "age": 30}`)
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	res, body := request(t, "GET", doc, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "application/json", res.Header.Get("Content-Type"))
	require.Equal(t, `{"name": "Sif", "age": 30}`, body)
	_, body = request(t, "GET", doc+"?field=name", "")
	require.Equal(t, `"Sif"`, body)
	res, _ = request(t, "GET", doc+"?field=none", "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)

	for _, c := range []struct {
		key, body string
		want      int
	}{
		{"a", `[1]`, http.StatusBadRequest},
		{"a", `null`, http.StatusBadRequest},
		{"a", `{"open": `, http.StatusBadRequest},
		{"", `{}`, http.StatusBadRequest},
		{"a", `{"long": "` + strings.Repeat("x", 1000) + `"}`, http.StatusRequestEntityTooLarge},
	} {
		res, body = request(t, "PUT", url+"/docs/"+c.key, c.body)
		require.Equal(t, c.want, res.StatusCode, "%s: %s", c.body, body)
	}
	res, _ = request(t, "GET", url+"/docs/a", "")
	require.Equal(t, http.StatusNotFound, res.StatusCode, "what was refused must not be stored")

	res, _ = request(t, "DELETE", doc, "")
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	res, _ = request(t, "GET", doc, "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	stop()
}

func TestETagChangesWithEveryWriteAndRestart(t *testing.T) {
	dir := t.TempDir()
	url, stop := inProcess(t, dir)
	doc := url + "/docs/a"
	seen := map[string]bool{}
	etag := func(url string) string {
		res, _ := request(t, "GET", url, "")
		require.Equal(t, http.StatusOK, res.StatusCode)
		tag := res.Header.Get("ETag")
		require.NotEmpty(t, tag)
		require.False(t, seen[tag], "an ETag came back")
		seen[tag] = true
		res, body := request(t, "GET", url, "", "If-None-Match", tag)
		require.Equal(t, http.StatusNotModified, res.StatusCode)
		require.Empty(t, body)
		return tag
	}
	last := ""
	for range 3 { // the same bytes each time: it is the write that counts
		request(t, "PUT", doc, `{"a": 1}`)
		res, _ := request(t, "GET", doc, "", "If-None-Match", last)
		require.Equal(t, http.StatusOK, res.StatusCode)
		last = etag(doc)
	}
	request(t, "DELETE", doc, "")
	request(t, "PUT", doc, `{"a": 1}`)
	last = etag(doc)
	stop()

	url, stop = inProcess(t, dir)
	doc = url + "/docs/a"
	res, _ := request(t, "GET", doc, "", "If-None-Match", last)
	require.Equal(t, http.StatusOK, res.StatusCode, "an ETag of an earlier process must not match")
	etag(doc)
	stop()
}

func TestVariables(t *testing.T) {
	url, stop := inProcess(t, t.TempDir())
	request(t, "PUT", url+"/docs/a", `{"a": 1}`)
	// The first Get decodes; the document enters memory a little later.
	require.Eventually(t, func() bool {
		request(t, "GET", url+"/docs/a", "")
		_, body := request(t, "GET", url+"/debug/vars", "")
		var vars struct {
			Store metrics.Snapshot              `json:"freyja"`
			Cache struct{ Hits, Decodes int64 } `json:"cache.stats"`
			Ratio float64                       `json:"cache.hit_ratio"`
			Mem   struct{ HeapAlloc uint64 }    `json:"memstats"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &vars), body)
		require.EqualValues(t, 1, vars.Store.Stats.Writes)
		require.EqualValues(t, 1, vars.Store.Usage.Keys)
		require.Positive(t, vars.Mem.HeapAlloc)
		require.Positive(t, vars.Cache.Decodes)
		return vars.Cache.Hits > 0 && vars.Ratio > 0
	}, 20*time.Second, time.Millisecond)
	stop()
}

// TestTerminatedWhileInUse sends SIGTERM in the middle of reads and writes, twice, and asks the next process for all that was
// acknowledged.
func TestTerminatedWhileInUse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM to send on Windows")
	}
	const writers = 8
	dir := t.TempDir()
	var acked, tried [writers]int // of each writer's document: the last number acknowledged, and the last sent
	for range 2 {
		p := start(t, dir)
		checkNumbers(t, p.url, acked[:], tried[:])
		var answered atomic.Int64
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				url := fmt.Sprintf("%s/docs/n/%d", p.url, w)
				for {
					tried[w]++
					if status := put(url, fmt.Sprintf(`{"n": %d}`, tried[w])); status != http.StatusNoContent {
						return // cut off, or refused: the service is going down
					}
					acked[w] = tried[w]
					// Nobody else writes it, so a read that is answered finds what was just written.
					if n, ok := number(url); ok && n != acked[w] {
						t.Errorf("read %d after %d was acknowledged", n, acked[w])
					}
					answered.Add(1)
				}
			})
		}
		require.Eventually(t, func() bool { return answered.Load() > 200 }, 60*time.Second, time.Millisecond)
		p.terminate(t)
		group.Wait()
		p.wait(t)
	}
	p := start(t, dir)
	checkNumbers(t, p.url, acked[:], tried[:])
	p.terminate(t)
	p.wait(t)
}

// checkNumbers expects of each writer's document the last number that was acknowledged, or one that was sent after it.
func checkNumbers(t *testing.T, url string, acked, tried []int) {
	t.Helper()
	for w := range acked {
		if acked[w] == 0 {
			continue
		}
		n, ok := number(fmt.Sprintf("%s/docs/n/%d", url, w))
		require.True(t, ok)
		require.GreaterOrEqual(t, n, acked[w])
		require.LessOrEqual(t, n, tried[w])
	}
}

// put returns the status of the answer, 0 for none.
func put(url, body string) int {
	req, err := http.NewRequest("PUT", url, strings.NewReader(body))
	if err != nil {
		return 0
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// number reads a writer's document.
func number(url string) (n int, ok bool) {
	res, err := http.Get(url)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	var doc struct{ N int }
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&doc) != nil {
		return 0, false
	}
	return doc.N, true
}

// TestRequestUnderWayFinishes stops the service while it waits for the rest of a document: that is still taken and stored.
func TestRequestUnderWayFinishes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM to send on Windows")
	}
	dir := t.TempDir()
	p := start(t, dir)
	conn, err := net.Dial("tcp", p.addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "PUT /docs/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n') // comes when the handler reads the body
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue")
	_, err = answers.ReadString('\n')
	require.NoError(t, err)

	p.terminate(t)
	require.Eventually(t, func() bool { // until it no longer listens
		probe, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = probe.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}, 20*time.Second, time.Millisecond)
	p.terminate(t) // once more, as supervisors do
	_, err = io.WriteString(conn, `{"n": 7}`)
	require.NoError(t, err)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	p.wait(t)

	p = start(t, dir)
	n, ok := number(p.url + "/docs/slow")
	require.True(t, ok)
	require.Equal(t, 7, n)
	p.terminate(t)
	p.wait(t)
}
