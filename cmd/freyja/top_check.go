package main

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/metrics"
)

// What top accepts of an endpoint, which may be anything that listens there. Larger numbers no store has, and sums of those
// that are accepted do not overflow.
const (
	topMostBytes = 1 << 52 // of what Usage counts, bytes or keys
	topMostCount = 1 << 62
	topMostFloat = 1e15
	topMostText  = 1 << 10 // bytes of a string that are kept
)

// checkTop refuses numbers that no store has, and makes all strings of s printable.
func checkTop(s *metrics.Snapshot) error {
	if n := len(s.Usage.Shards); n > freyja.MaxShards {
		return fmt.Errorf("has %d shards, more than a store can have", n)
	}
	if err := checkTopValue("usage", reflect.ValueOf(&s.Usage), topMostBytes); err != nil {
		return err
	}
	return checkTopValue("", reflect.ValueOf(s), topMostCount)
}

// checkTopValue goes through the fields of a value. name is what JSON calls it.
func checkTopValue(name string, v reflect.Value, most int64) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return checkTopValue(name, v.Elem(), most)
	case reflect.Struct:
		return checkTopFields(name, v, most)
	case reflect.Slice:
		for i := range v.Len() {
			if err := checkTopValue(fmt.Sprintf("%s[%d]", name, i), v.Index(i), most); err != nil {
				return err
			}
		}
	case reflect.Int, reflect.Int64:
		if n := v.Int(); n < 0 || n > most {
			return fmt.Errorf("says that %s is %d, which no store has", name, n)
		}
	case reflect.Float64:
		if f := v.Float(); f < 0 || f > topMostFloat || math.IsNaN(f) {
			return fmt.Errorf("says that %s is %g, which no store has", name, f)
		}
	case reflect.String:
		v.SetString(printable(cutText(v.String())))
	}
	return nil
}

func checkTopFields(name string, v reflect.Value, most int64) error {
	if v.Type() == reflect.TypeFor[time.Time]() {
		return nil // what JSON can say is in range
	}
	for i := range v.NumField() {
		field, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name != "" {
			field = name + "." + field
		}
		if err := checkTopValue(field, v.Field(i), most); err != nil {
			return err
		}
	}
	return nil
}

// cutText is text, or its beginning if it is long.
func cutText(text string) string {
	if len(text) <= topMostText {
		return text
	}
	n := topMostText
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}
