package gormstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Rollups of details are packs: all details of some flags over a span in one value, so that a query over all flags reads some
// thousand values instead of some hundred thousand rows. A pack also has the events that no detail explains, as
// datar.Unattributed: a query that finds a pack reads neither table.

const (
	packTable = "datar_rollup_details"
	// flagsPerPack is a compromise: a query for one flag decodes the others of its packs, too.
	flagsPerPack = 32
	packFormat   = 1
)

var perDetail = source{table: packTable}

// packOf returns which pack of a span has the flag.
func packOf(flagID int64) int64 { return flagID / flagsPerPack }

// appendPacked appends a row of a span that begins at a time in Unix milliseconds, after one of the flag before.
func appendPacked(pack []byte, r datar.Row, flagBefore, start int64) []byte {
	pack = binary.AppendUvarint(pack, uint64(r.FlagID-flagBefore))
	pack = append(pack, byte(r.Outcome), byte(r.Asked))
	pack = binary.AppendUvarint(pack, uint64(r.Version))
	pack = binary.AppendVarint(pack, r.VariantID)
	pack = binary.AppendVarint(pack, r.SegmentID)
	pack = binary.AppendVarint(pack, r.Count)
	pack = binary.AppendVarint(pack, r.Ingested)
	if r.First == 0 && r.Last == 0 {
		return append(pack, 0) // not known
	}
	pack = append(pack, 1)
	pack = binary.AppendVarint(pack, r.First-start)
	return binary.AppendVarint(pack, r.Last-r.First)
}

// pack returns rows of one pack, in their order.
func pack(rows []datar.Row, start int64) []byte {
	packed := []byte{packFormat}
	before := int64(0)
	for _, r := range rows {
		packed = appendPacked(packed, r, before, start)
		before = r.FlagID
	}
	return packed
}

var errPack = errors.New("invalid pack")

// unpacker reads the rows of a pack.
type unpacker struct {
	left  []byte
	err   error
	start int64
	row   datar.Row
}

func unpack(packed []byte, start int64) *unpacker {
	if len(packed) == 0 || packed[0] != packFormat {
		return &unpacker{err: fmt.Errorf("%w: its format is not %d", errPack, packFormat)}
	}
	return &unpacker{left: packed[1:], start: start}
}

func (u *unpacker) byte() byte {
	if len(u.left) == 0 {
		u.err = fmt.Errorf("%w: it ends within a row", errPack)
		return 0
	}
	b := u.left[0]
	u.left = u.left[1:]
	return b
}

func (u *unpacker) uvarint() uint64 {
	n, size := binary.Uvarint(u.left)
	if size <= 0 {
		u.err = fmt.Errorf("%w: it ends within a number", errPack)
		return 0
	}
	u.left = u.left[size:]
	return n
}

func (u *unpacker) varint() int64 {
	n := u.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

// next reads the next row into u.row, and returns false at the end or at an error, which is in u.err.
func (u *unpacker) next() bool {
	if len(u.left) == 0 || u.err != nil {
		return false
	}
	r := &u.row
	r.FlagID += int64(u.uvarint())
	r.Outcome, r.Asked = datar.Outcome(u.byte()), datar.Asked(u.byte())
	r.Version = uint16(u.uvarint())
	r.VariantID, r.SegmentID = u.varint(), u.varint()
	r.Count, r.Ingested = u.varint(), u.varint()
	r.First, r.Last = 0, 0
	if u.byte() != 0 {
		r.First = u.start + u.varint()
		r.Last = r.First + u.varint()
	}
	return u.err == nil
}

// fillPacks writes the packs of a rollup.
func (s *Store) fillPacks(tx *gorm.DB, k kind, span hourRange) error {
	rows, err := s.detailsOf(tx, k, span)
	if err != nil {
		return err
	}
	type packed struct {
		number int64
		rows   []byte
	}
	var packs []packed
	start := datar.Hour(span.from).Time().UnixMilli()
	for from := 0; from < len(rows); {
		number, to := packOf(rows[from].FlagID), from+1
		for to < len(rows) && packOf(rows[to].FlagID) == number {
			to++
		}
		packs = append(packs, packed{number, pack(rows[from:to], start)})
		from = to
	}
	for _, p := range packs {
		if err := tx.Exec(s.sql("INSERT INTO datar_rollup_details (span, start_hour, pack, details) VALUES (?, ?, ?, ?)"), k.id, span.from, p.number, p.rows).Error; err != nil {
			return err
		}
	}
	return nil
}

// detailsOf returns what the packs of a span have, in the order of their keys: the sums of the packs of shorter spans if they
// are all there, else those of the details and events.
func (s *Store) detailsOf(tx *gorm.DB, k kind, span hourRange) ([]datar.Row, error) {
	g := groups{by: allParts}
	smaller, err := s.smallerRollups(tx, k, span)
	if err != nil {
		return nil, err
	}
	if smaller != 0 {
		err = s.readPacks(tx, smaller, span, 0, func(_ int64, r datar.Row) { g.add(r) })
	} else {
		err = s.addLive(tx, &g, []hourRange{span}, 0)
	}
	return g.rows(), err
}

// readPacks calls each with the rows of packs of a kind that start within the range, and that start: of one flag, or of all
// if the id is 0. The hour of a row is that start.
func (s *Store) readPacks(tx *gorm.DB, kind int64, within hourRange, flagID int64, each func(start int64, r datar.Row)) error {
	statement, values := "SELECT start_hour, details FROM datar_rollup_details WHERE span = ? AND start_hour >= ? AND start_hour < ?", []any{kind, within.from, within.to}
	if flagID != 0 {
		statement += " AND pack = ?"
		values = append(values, packOf(flagID))
	}
	rows, err := tx.Raw(s.sql(statement), values...).Rows()
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err reports what went wrong
	for rows.Next() {
		var start int64
		var packed []byte
		if err := rows.Scan(&start, &packed); err != nil {
			return err
		}
		u := unpack(packed, datar.Hour(start).Time().UnixMilli())
		for u.next() {
			if flagID == 0 || u.row.FlagID == flagID {
				u.row.Hour = datar.Hour(start)
				each(start, u.row)
			}
		}
		if u.err != nil {
			return fmt.Errorf("details from %s: %w", datar.Hour(start).Time().Format("2006-01-02T15Z"), u.err)
		}
	}
	return rows.Err()
}
