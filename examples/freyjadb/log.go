package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/freyjadb/freyja"
)

// logName is the file that FreyjaDB keeps all data in: one record for each write, in order, all numbers little-endian.
//
//	0       4         8          12          20     20+k        20+k+v
//	+-------+---------+-----------+-----------+------+-----------+
//	| crc   | k: size | v: size   | time, ns  | key  | value     |
//	|       | of key  | of value  |           |      |           |
//	+-------+---------+-----------+-----------+------+-----------+
//
// The checksum is CRC-32 (IEEE) of all that follows it. An empty value is a delete.
const (
	logName    = "active.data"
	headerSize = 20
)

// freyjaDBLog is a source of the writes in such a file.
type freyjaDBLog struct {
	file   *os.File
	reader *bufio.Reader
	offset int64
	buf    []byte // the record at hand
}

func openLog(path string) (*freyjaDBLog, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &freyjaDBLog{file: file, reader: bufio.NewReaderSize(file, 1<<20)}, nil
}

// Close closes the file.
func (l *freyjaDBLog) Close() error { return l.file.Close() }

var errDamagedLog = errors.New("damaged record: let FreyjaDB open its store once, " +
	"which cuts off what is not whole and all behind it, and see what is left")

// next returns the next write. A piece at the end that is shorter than a header is passed over, as FreyjaDB does: its process died
// while it wrote that. Any other piece of a record is an error: it is not for a copy to decide what to leave out.
func (l *freyjaDBLog) next() (write, error) {
	l.buf = append(l.buf[:0], make([]byte, headerSize)...)
	switch _, err := io.ReadFull(l.reader, l.buf); err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		return write{}, io.EOF
	default:
		return write{}, l.fail(err)
	}
	keySize := binary.LittleEndian.Uint32(l.buf[4:])
	valueSize := binary.LittleEndian.Uint32(l.buf[8:])
	// Before memory is asked for: what is damaged may say anything.
	if keySize == 0 || keySize > freyja.MaxKeySize || valueSize > freyja.MaxValueSize {
		return write{}, l.fail(fmt.Errorf("key of %d bytes, value of %d: %w", keySize, valueSize, errDamagedLog))
	}
	size := headerSize + int(keySize) + int(valueSize)
	if cap(l.buf) < size {
		l.buf = append(make([]byte, 0, size), l.buf...)
	}
	l.buf = l.buf[:size]
	if _, err := io.ReadFull(l.reader, l.buf[headerSize:]); err != nil {
		return write{}, l.fail(err)
	}
	if crc32.ChecksumIEEE(l.buf[4:]) != binary.LittleEndian.Uint32(l.buf) {
		return write{}, l.fail(fmt.Errorf("wrong checksum: %w", errDamagedLog))
	}
	l.offset += int64(size)
	value := l.buf[headerSize+keySize:]
	return write{key: l.buf[headerSize : headerSize+keySize], value: value, deleted: valueSize == 0}, nil
}

// fail says where it failed.
func (l *freyjaDBLog) fail(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("the file ends in it: %w", errDamagedLog)
	}
	return fmt.Errorf("%q: record at %d: %w", l.file.Name(), l.offset, err)
}

// appendRecord appends a record as FreyjaDB writes it.
func appendRecord(dst []byte, unixNano uint64, key, value []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0) // the checksum, below
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(key)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	dst = binary.LittleEndian.AppendUint64(dst, unixNano)
	dst = append(append(dst, key...), value...)
	binary.LittleEndian.PutUint32(dst[start:], crc32.ChecksumIEEE(dst[start+4:]))
	return dst
}

// writeSample makes a folder such as FreyjaDB leaves: a thousand users, each written twice, and every other one deleted.
func writeSample(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var log []byte
	add := func(i int, value string) {
		log = appendRecord(log, uint64(1_700_000_000_000_000_000+len(log)), fmt.Appendf(nil, "user/%d", i), []byte(value))
	}
	for i := range 1000 {
		add(i, "an older value")
		add(i, fmt.Sprintf(`{"n": %d}`, i))
		if i%2 == 1 {
			add(i, "") // a delete
		}
	}
	return os.WriteFile(filepath.Join(dir, logName), log, 0o600)
}
