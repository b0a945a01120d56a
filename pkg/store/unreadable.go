package store

import (
	"cmp"
	"database/sql"
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// cell is the target of one value of a row. Other programs and people also write rows. So a value
// that cannot be read is not an error of the query: it is read as the zero value, and noted.
type cell struct {
	target sql.Scanner
	column string
	how    *reading
}

// Scan implements sql.Scanner.
func (c *cell) Scan(value any) error {
	if err := c.target.Scan(value); err != nil {
		c.how.wrong = append(c.how.wrong, c.column+" "+err.Error())
	}
	return nil
}

// lenient scans a value that is the zero value if it cannot be read.
type lenient struct{ sql.Scanner }

// Scan implements sql.Scanner.
func (l lenient) Scan(value any) error {
	_ = l.Scanner.Scan(value)
	return nil
}

// unreadable has the values that cannot be read, by the flags and segments that they belong to.
type unreadable map[ownerOf]unread

type ownerOf struct {
	owner owner
	id    uint
}

// unread describes the first value of an owner, and counts the others, so that a table of damaged
// rows takes little memory.
type unread struct {
	first string
	more  int
}

// note notes the values of a row that cannot be read.
func (r *reading) note(row any) {
	wrong := r.wrong
	r.wrong = r.wrong[:0]
	if r.skip || r.unreadable == nil {
		return
	}
	of, part := placeOf(row)
	if of.owner == "" {
		return
	}
	known := r.unreadable[of]
	for _, text := range wrong {
		if known.first == "" {
			known.first = part + text
		} else {
			known.more++
		}
	}
	r.unreadable[of] = known
}

// placeOf returns the owner of a row, and how messages name the row.
func placeOf(row any) (of ownerOf, part string) {
	switch row := row.(type) {
	case *entity.Flag:
		return ownerOf{ofFlag, row.ID}, ""
	case *entity.Variant:
		return ownerOf{ofFlag, row.FlagID}, fmt.Sprintf("variant %d: ", row.ID)
	case *entity.Segment:
		return ownerOf{ofFlag, row.FlagID}, fmt.Sprintf("segment %d: ", row.ID)
	case *entity.Constraint:
		return ownerOf{ofSegment, row.SegmentID}, fmt.Sprintf("constraint %d: ", row.ID)
	case *entity.Distribution:
		return ownerOf{ofSegment, row.SegmentID}, fmt.Sprintf("distribution %d: ", row.ID)
	default: // tags, which belong to several flags, and snapshots have nothing that evaluation needs
		return ownerOf{}, ""
	}
}

// mark sets Unreadable of flags.
func (r *reading) mark(flags []entity.Flag) {
	if len(r.unreadable) == 0 {
		return
	}
	for i := range flags {
		f := &flags[i]
		all := r.unreadable[ownerOf{ofFlag, f.ID}]
		for j := range f.Segments {
			of := r.unreadable[ownerOf{ofSegment, f.Segments[j].ID}]
			if all.first != "" && of.first != "" {
				of.more++
			}
			all = unread{cmp.Or(all.first, of.first), all.more + of.more}
		}
		f.Unreadable = all.String()
	}
}

func (u unread) String() string {
	if u.more == 0 {
		return u.first
	}
	return fmt.Sprintf("%s (and %d more)", u.first, u.more)
}

// unreadableError rejects a request that would read a value of a flag and write it elsewhere.
func unreadableError(id uint, problem string) error {
	return entity.Wrong("api.store.unreadable", "id", catalog.Digits(id), "problem", catalog.Literal(problem))
}
