package main

import (
	"fmt"

	"github.com/freyjadb/freyja"
)

// damageReport is freyja.Damage as --json prints it.
type damageReport struct {
	Shard   int    `json:"shard"` // -1: a file of the whole store
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Bytes   int64  `json:"bytes"` // 0: its end is not known
	jsonKey        // of the damaged record, if it is known
	Reason  string `json:"reason"`
}

// newDamageReports is [] in JSON if there are none, not null.
func newDamageReports(damages []freyja.Damage) []damageReport {
	reports := make([]damageReport, 0, len(damages))
	for _, d := range damages {
		reports = append(reports, damageReport{d.Shard, d.File, d.Offset, d.Bytes, newJSONKey(d.Key), d.Reason})
	}
	return reports
}

// damageLine says what is damaged, for people.
func damageLine(d freyja.Damage) string {
	line := fmt.Sprintf("damaged   %s: offset %d, ", d.File, d.Offset)
	if d.Bytes > 0 {
		line += fmt.Sprintf("%d bytes", d.Bytes)
	} else {
		line += "up to an unknown end"
	}
	if len(d.Key) > 0 { // no key is empty
		line += fmt.Sprintf(", key %q", d.Key)
	}
	return printable(line + ": " + d.Reason)
}

// places counts damages, for people.
func places(damages []freyja.Damage) string {
	if len(damages) == 1 {
		return "1 damaged place"
	}
	return fmt.Sprintf("%d damaged places", len(damages))
}
