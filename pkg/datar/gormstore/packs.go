package gormstore

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Rollups of details are packs. A pack contains all details of some flags over a span in one value,
// so that a query over all flags reads a few thousand values instead of a few hundred thousand
// rows. A pack also contains the events that no detail explains, as datar.Unattributed. So a query
// that finds a pack reads neither table.

const (
	packTable = "datar_rollup_details"
	// The numbers of flags in a pack are compromises, because a query for one flag also reads the
	// other flags of its packs. A pack with hours has ten times as much data per flag, and only
	// queries for one flag read it.
	flagsPerPack, flagsPerHours = 32, 4

	// The first byte of a pack is its format. With formatHours, each row begins with its hour
	// within the span. Its times are relative to this hour.
	formatSums, formatHours = 1, 2
)

var perDetail = source{table: packTable}

// packOf returns the number of the pack that contains the flag.
func (k kind) packOf(flagID int64) int64 {
	if k.byHour {
		return flagID / flagsPerHours
	}
	return flagID / flagsPerPack
}

// parts returns what the rows of packs are grouped by.
func (k kind) parts() datar.Parts {
	if k.byHour {
		return allParts | datar.GroupHour
	}
	return allParts
}

// pack encodes the rows of one pack of a span that begins with start. The rows are in key order.
func (k kind) pack(rows []datar.Row, start int64) []byte {
	p := newPacker(k, start)
	p.add(rows)
	return p.pack(p.flags)
}

// packer encodes the rows of a span. Encoded rows take a fifth of the memory of others.
type packer struct {
	kind
	start    int64
	sections map[int64][]byte // by flag
	flags    []int64          // the keys of sections
}

func newPacker(k kind, start int64) *packer {
	return &packer{kind: k, start: start, sections: map[int64][]byte{}}
}

// add adds rows in key order, after those of earlier hours.
func (p *packer) add(rows []datar.Row) {
	for len(rows) > 0 {
		flag := rows[0].FlagID
		section, found := p.sections[flag]
		if !found {
			p.flags = append(p.flags, flag)
		}
		for ; len(rows) > 0 && rows[0].FlagID == flag; rows = rows[1:] {
			hour := datar.Hour(p.start)
			if p.byHour {
				hour = rows[0].Hour
				section = append(section, byte(int64(hour)-p.start))
			}
			section = appendPacked(section, rows[0], hour.Time().UnixMilli())
		}
		p.sections[flag] = section
	}
}

// pack encodes one pack. A header with the length of its rows precedes the rows of each flag, so
// that a reader can skip them.
func (p *packer) pack(flags []int64) []byte {
	packed := []byte{formatSums}
	if p.byHour {
		packed[0] = formatHours
	}
	for _, flag := range flags {
		section := p.sections[flag]
		packed = binary.AppendUvarint(packed, uint64(flag))
		packed = binary.AppendUvarint(packed, uint64(len(section)))
		packed = append(packed, section...)
	}
	return packed
}

// packs calls write with each pack and its number, until write returns an error.
func (p *packer) packs(write func(number int64, packed []byte) error) error {
	slices.Sort(p.flags)
	for from := 0; from < len(p.flags); {
		number, to := p.packOf(p.flags[from]), from+1
		for to < len(p.flags) && p.packOf(p.flags[to]) == number {
			to++
		}
		if err := write(number, p.pack(p.flags[from:to])); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func appendPacked(section []byte, r datar.Row, start int64) []byte {
	section = append(section, byte(r.Outcome), byte(r.Asked))
	section = binary.AppendUvarint(section, uint64(r.Version))
	section = binary.AppendVarint(section, r.VariantID)
	section = binary.AppendVarint(section, r.SegmentID)
	section = binary.AppendVarint(section, r.Count)
	section = binary.AppendVarint(section, r.Ingested)
	if r.First == 0 && r.Last == 0 {
		return append(section, 0) // unknown
	}
	section = append(section, 1)
	section = binary.AppendVarint(section, r.First-start)
	return binary.AppendVarint(section, r.Last-r.First)
}

var errPack = errors.New("invalid pack")

// unpack decodes a pack of a span that begins with start, and calls each with the rows of one flag,
// or of all flags if flagID is 0. The hour of a row is its own if the pack contains hours.
// Otherwise it is start.
func unpack(packed []byte, start, flagID int64, each func(datar.Row)) error {
	if len(packed) == 0 || packed[0] != formatSums && packed[0] != formatHours {
		return fmt.Errorf("%w: its format is not %d or %d", errPack, formatSums, formatHours)
	}
	byHour := packed[0] == formatHours
	begin := datar.Hour(start).Time().UnixMilli()
	u := unpacker{left: packed[1:]}
	for len(u.left) > 0 && !u.short {
		r := datar.Row{Key: datar.Key{FlagID: int64(u.uvarint())}}
		length := u.uvarint()
		if length > uint64(len(u.left)) {
			u.short = true
			break
		}
		rest := u.left[length:]
		if flagID != 0 && flagID != r.FlagID {
			u.left = rest
			continue
		}
		u.left = u.left[:length]
		for len(u.left) > 0 && !u.short {
			r.Hour = datar.Hour(start)
			if byHour {
				r.Hour += datar.Hour(u.byte())
			}
			u.row(&r, begin+int64(r.Hour-datar.Hour(start))*hourMs)
			if !u.short {
				each(r)
			}
		}
		u.left = rest
	}
	if u.short {
		return fmt.Errorf("%w: it ends too early", errPack)
	}
	return nil
}

const hourMs = int64(time.Hour / time.Millisecond)

// unpacker reads the rest of a pack.
type unpacker struct {
	left  []byte
	short bool // a read went past the end
}

func (u *unpacker) row(r *datar.Row, start int64) {
	r.Outcome, r.Asked = datar.Outcome(u.byte()), datar.Asked(u.byte())
	r.Version = uint16(u.uvarint())
	r.VariantID, r.SegmentID = u.varint(), u.varint()
	r.Count, r.Ingested = u.varint(), u.varint()
	r.First, r.Last = 0, 0
	if u.byte() != 0 {
		r.First = start + u.varint()
		r.Last = r.First + u.varint()
	}
}

func (u *unpacker) byte() byte {
	if len(u.left) == 0 {
		u.short = true
		return 0
	}
	b := u.left[0]
	u.left = u.left[1:]
	return b
}

func (u *unpacker) uvarint() uint64 {
	n, size := binary.Uvarint(u.left)
	if size <= 0 {
		u.short = true
		return 0
	}
	u.left = u.left[size:]
	return n
}

func (u *unpacker) varint() int64 {
	n := u.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

// fillPacks writes the packs of a rollup. Packs of hours are read hour by hour: a day has more rows
// than memory should hold.
func (s *Store) fillPacks(tx *gorm.DB, k kind, span hourRange) error {
	smaller, err := s.smallerRollups(tx, k, span)
	if err != nil {
		return err
	}
	parts := []hourRange{span}
	if k.byHour {
		parts = parts[:0]
		for hour := span.from; hour < span.to; hour++ {
			parts = append(parts, hourRange{hour, hour + 1})
		}
	}
	p := newPacker(k, span.from)
	for _, part := range parts {
		rows, err := s.detailsOf(tx, k, part, smaller)
		if err != nil {
			return err
		}
		p.add(rows)
	}
	return p.packs(func(number int64, packed []byte) error {
		return tx.Exec(s.sql("INSERT INTO datar_rollup_details (span, start_hour, pack, details) VALUES (?, ?, ?, ?)"), k.id, span.from, number, packed).Error
	})
}

// detailsOf returns the rows of hours for packs of a kind, in key order. They are the sums of the
// packs of the smaller kind, or of details and events if smaller is 0.
func (s *Store) detailsOf(tx *gorm.DB, k kind, hours hourRange, smaller int64) ([]datar.Row, error) {
	g := groups{by: k.parts()}
	var err error
	if smaller != 0 {
		err = s.readPacks(tx, smaller, hours, func(_ int64, r datar.Row) { g.add(r) })
	} else {
		err = s.addLive(tx, &g, []hourRange{hours}, 0)
	}
	return g.rows(), err
}

// readPacks calls each with the rows of all flags in packs of a kind that start within the range.
// start is that of the pack.
func (s *Store) readPacks(tx *gorm.DB, kind int64, within hourRange, each func(start int64, r datar.Row)) error {
	return s.eachPack(tx, "start_hour >= ? AND start_hour < ?", []any{kind, within.from, within.to}, 0, each)
}

// readPacksOfFlag calls each with the rows of one flag in the packs with the given starts. It looks
// up packs one by one: the flag is the last column of their primary key, so a range would read the
// packs of all flags.
func (s *Store) readPacksOfFlag(tx *gorm.DB, k kind, starts []int64, flagID int64, each func(datar.Row)) error {
	for some := range slices.Chunk(starts, hoursTogether) {
		if err := s.eachPack(tx, "start_hour IN ? AND pack = ?", []any{k.id, padded(some), k.packOf(flagID)}, flagID, func(_ int64, r datar.Row) { each(r) }); err != nil {
			return err
		}
	}
	return nil
}

// eachPack calls each with the rows of the packs that meet the condition. The first of values is
// their kind.
func (s *Store) eachPack(tx *gorm.DB, condition string, values []any, flagID int64, each func(start int64, r datar.Row)) error {
	rows, err := tx.Raw(s.sql("SELECT start_hour, details FROM datar_rollup_details WHERE span = ? AND "+condition), values...).Rows()
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err reports errors
	for rows.Next() {
		var start int64
		var packed sql.RawBytes // memory of the driver, which unpack reads but does not retain
		if err := rows.Scan(&start, &packed); err != nil {
			return err
		}
		if err := unpack(packed, start, flagID, func(r datar.Row) { each(start, r) }); err != nil {
			return fmt.Errorf("details from %s: %w", datar.Hour(start).Time().Format("2006-01-02T15Z"), err)
		}
	}
	return rows.Err()
}
