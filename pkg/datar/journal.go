package datar

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// A journal is a file whose mapped memory holds the slots of one arena. Counting changes the file,
// and costs as much as in memory. When the process is killed, the kernel still has the pages.
// Nothing is written as a log or replayed: the counters themselves are read back.
//
// The file begins with a header of one page. The slots follow, and then three arrays with a number
// for each slot: the total stored count once a batch is stored. Batch n uses the array n modulo 3.
// With the number of the newest batch, the arrays describe the batch in flight, so that a process
// that finds the file can send exactly the same batch again; the store ignores it if it has it. The
// array before has the counts stored by the previous batch, because its confirmation, the field
// stored of its slots, reaches the disk no earlier than the next batch. The third array may be half
// written, by a process that was killed before it saved the number of its next batch.
const (
	journalMagic = "datarjnl"
	// journalVersion is the version that is written. Files of version 1 differ only in that four
	// bytes of a slot, which now have version, outcome and asked, are 0; they are adopted
	// unchanged.
	journalVersion       = 2
	oldestJournalVersion = 1
	headerSize           = 4096
	// arenaSlots times the 88 bytes of a slot and its readings are 352 pages. A batch is at most
	// one arena.
	arenaSlots = 16_384
	// readings is the number of arrays of readings.
	readings = 3
)

// journalHeader is the layout of the first page. All fields except begun are written once.
type journalHeader struct {
	magic    [8]byte
	order    uint32 // 1, to recognize a file of a machine with another byte order
	version  uint32
	slots    uint32
	slotSize uint32
	// database and writer are strings of at most 64 bytes, padded with zeros.
	database, writer [64]byte
	checksum         uint32 // CRC-32 (IEEE) of the bytes before
	_                uint32
	begun            atomic.Int64 // sequence of the newest batch
	// run is the run that counts in the file, as in its ServerRecord. Files of earlier versions
	// have zeros here.
	run [64]byte
}

func (h *journalHeader) sum() uint32 {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Offsetof(h.checksum))
	return crc32.ChecksumIEEE(bytes)
}

type journal struct {
	path   string
	run    string   // that created the file, if it is known
	file   *os.File // holds the lock
	mapped []byte
	header *journalHeader
	sent   [readings][]atomic.Int64
}

func journalSize(slots int) int64 { return headerSize + int64(slots)*(slotSize+readings*8) }

// unfinishedSuffix is the suffix of a journal that is being created.
const unfinishedSuffix = ".new"

// journalName matches the names of journals. The first group is the database, the second the
// writer.
var journalName = regexp.MustCompile(`^datar-([0-9a-zA-Z-]+)\.([0-9a-f-]{36})\.journal$`)

// runName matches the names of runs.
var runName = regexp.MustCompile(`^[0-9a-f-]{36}$`)

func journalPath(dir, database, writer string) string {
	return filepath.Join(dir, "datar-"+database+"."+writer+".journal")
}

// createJournal creates a file for a new arena of a run. The file gets its name only when it is
// complete and locked.
func createJournal(dir, database, run string, w writer, slots int) (_ *arena, err error) {
	path := journalPath(dir, database, w.id)
	file, err := os.OpenFile(path+unfinishedSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) { // left by a process that was killed at this point: no other process has this writer
		file, err = os.OpenFile(path+unfinishedSuffix, os.O_RDWR|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(path + unfinishedSuffix)
		}
	}()
	// Write the whole file before mapping it, so that a full disk is an error here and not a fault
	// in a running server.
	zeros := make([]byte, 64<<10)
	for left := journalSize(slots); left > 0; left -= int64(len(zeros)) {
		if _, err := file.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
			return nil, fmt.Errorf("allocate journal: %w", err)
		}
	}
	a, err := mapJournal(file, path, slots)
	if err != nil {
		return nil, err
	}
	h := a.journal.header
	copy(h.magic[:], journalMagic)
	h.order, h.version, h.slots, h.slotSize = 1, journalVersion, uint32(slots), slotSize
	copy(h.database[:], database)
	copy(h.writer[:], w.id)
	copy(h.run[:], run)
	h.checksum = h.sum()
	h.begun.Store(w.sequence)
	a.flushing.writer = w
	if err := lockFile(file); err != nil {
		return nil, fmt.Errorf("lock journal: %w", err)
	}
	if err := os.Rename(path+unfinishedSuffix, path); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return a, nil
}

// mapJournal maps an arena to the file.
func mapJournal(file *os.File, path string, slots int) (*arena, error) {
	mapped, err := mapFile(file, int(journalSize(slots)))
	if err != nil {
		return nil, fmt.Errorf("map journal: %w", err)
	}
	j := &journal{path: path, file: file, mapped: mapped, header: (*journalHeader)(unsafe.Pointer(&mapped[0]))}
	at := headerSize
	all := unsafe.Slice((*slot)(unsafe.Pointer(&mapped[at])), slots)
	at += slots * slotSize
	for i := range j.sent {
		j.sent[i] = unsafe.Slice((*atomic.Int64)(unsafe.Pointer(&mapped[at])), slots)
		at += slots * 8
	}
	a := &arena{slots: all, journal: j}
	runtime.AddCleanup(a, unmap, mapped)
	return a, nil
}

// begin writes the batch in flight to the file, and syncs the file. It continues if the sync fails:
// the file then only misses protection against a power failure.
func (j *journal) begin(p *pending) {
	sent := j.sent[p.batch.Sequence%readings]
	for _, r := range p.readings {
		sent[r.cell.index].Store(r.count)
	}
	j.header.begun.Store(p.batch.Sequence)
	_ = syncMapped(j.mapped)
}

// abort removes the batch in flight from the file. Its number stays the newest, until the next
// batch uses it.
func (j *journal) abort(p *pending) {
	sent := j.sent[p.batch.Sequence%readings]
	for _, r := range p.readings {
		sent[r.cell.index].Store(r.cell.bothLocks.settled)
	}
}

// intact reports whether the file still exists under its name, in full length.
func (j *journal) intact() bool {
	open, err := j.file.Stat()
	return err == nil && open.Size() == int64(len(j.mapped)) && j.hasName(open)
}

// hasName reports whether the file's name still refers to it.
func (j *journal) hasName(open fs.FileInfo) bool {
	named, err := os.Stat(j.path)
	return err == nil && os.SameFile(open, named)
}

// remove deletes the file, if it is still ours, and closes it.
func (j *journal) remove() error {
	open, err := j.file.Stat()
	if err == nil && j.hasName(open) {
		err = os.Remove(j.path)
	}
	return errors.Join(err, j.leave())
}

// leave releases the lock and the memory, and keeps the file for adoption. Later uses of the arena
// fault.
func (j *journal) leave() error {
	err := detachMapped(j.mapped)
	return errors.Join(err, unlockFile(j.file), j.file.Close())
}

// errDamaged marks a file that is not a valid journal, or no longer valid.
var errDamaged = errors.New("not a valid journal")

// openJournal opens a file that no process holds and reads back its contents. It returns nil if a
// process holds it, or if it is gone. The error matches errDamaged if the file must be renamed.
func openJournal(path, database, writer string, of abilities) (_ *arena, err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	keep := false
	defer func() {
		if !keep {
			_ = file.Close()
		}
	}()
	if lockFile(file) != nil {
		return nil, nil // its process is alive
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(info, named) {
		return nil, nil // another process sent and removed it just before this one got the lock
	}
	slots, err := checkHeader(file, info.Size(), database, writer)
	if err != nil {
		return nil, err
	}
	a, err := mapJournal(file, path, slots)
	if err != nil {
		return nil, err
	}
	if run := text(a.journal.header.run); runName.MatchString(run) { // the checksum does not include it
		a.journal.run = run
	}
	a.flushing.writer.id = writer
	a.engineMu.detached = true
	a.counters = of.counters
	var damage error
	if !a.guard(func() { damage = a.recover(of.details) }) {
		damage = errors.New("it was truncated while being read")
	}
	if damage != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, damage)
	}
	keep = true
	return a, nil
}

// checkHeader checks the header against the file's name, and returns the number of slots.
func checkHeader(file *os.File, size int64, database, writer string) (slots int, err error) {
	var page [headerSize]byte
	if size < headerSize {
		return 0, fmt.Errorf("%w: it has %d bytes, less than a header", errDamaged, size)
	}
	if _, err := file.ReadAt(page[:], 0); err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	h := (*journalHeader)(unsafe.Pointer(&page[0]))
	switch {
	case string(h.magic[:]) != journalMagic:
		return 0, fmt.Errorf("%w: it does not begin with %q", errDamaged, journalMagic)
	case h.order != 1:
		return 0, fmt.Errorf("%w: it was written by a machine with another byte order", errDamaged)
	case h.version < oldestJournalVersion || h.version > journalVersion:
		return 0, fmt.Errorf("%w: its format is version %d, this server supports %d to %d", errDamaged, h.version, oldestJournalVersion, journalVersion)
	case h.checksum != h.sum():
		return 0, fmt.Errorf("%w: the checksum of its header is wrong", errDamaged)
	case h.slotSize != slotSize || h.slots == 0 || h.slots > 1<<20 || journalSize(int(h.slots)) != size:
		return 0, fmt.Errorf("%w: it has %d bytes, which does not match its header", errDamaged, size)
	case text(h.database) != database:
		return 0, fmt.Errorf("%w: it belongs to the database %q", errDamaged, text(h.database))
	case text(h.writer) != writer:
		return 0, fmt.Errorf("%w: it belongs to the writer %q", errDamaged, text(h.writer))
	}
	return int(h.slots), nil
}

func text(padded [64]byte) string {
	n := 0
	for n < len(padded) && padded[n] != 0 {
		n++
	}
	return string(padded[:n])
}

// recover restores the state of the previous process. The batch in flight becomes pending again,
// unchanged, and later counts are marked as changed. Without details, only events are restored,
// with their keys.
func (a *arena) recover(details bool) error {
	begun := a.journal.header.begun.Load()
	if begun < 0 {
		return fmt.Errorf("the number of its newest batch is %d", begun)
	}
	inFlight, before := a.journal.sent[begun%readings], a.journal.sent[(begun+readings-1)%readings]
	next := a.journal.sent[(begun+1)%readings]
	for i := range a.slots {
		s := &a.slots[i]
		if s.flagID.Load() == 0 {
			continue
		}
		// The next batch may have other slots than the half-written one.
		next[i].Store(0)
		// After a power failure, the disk may not have the confirmation of the batch before the one
		// in flight. It may have the reading of the batch in flight but not yet the count: then the
		// batch was never sent.
		stored, count := max(s.stored.Load(), before[i].Load()), s.counted()
		if err := s.check(count, stored); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
		inFlight[i].Store(min(inFlight[i].Load(), count))
		s.stored.Store(stored)
		if count > stored {
			key := s.key()
			if !details {
				if !key.Outcome.IsEvent() {
					continue
				}
				key = key.event()
			}
			c := newCell(key, a, i)
			c.bothLocks.settled = stored
			c.flags.Or(changed)
			a.engineMu.cells = append(a.engineMu.cells, c)
		}
	}
	if begun == 0 {
		return nil
	}
	sortCells(a.engineMu.cells)
	a.flushing.writer.sequence = begun - 1
	a.freeze(a.engineMu.cells, func(c *cell) (int64, int64) { return inFlight[c.index].Load(), c.bothLocks.settled })
	a.flushing.writer.sequence = begun // even if nothing was in flight
	return nil
}

// check reports values that this package cannot have written, which means that the file is torn.
func (s *slot) check(count, stored int64) error {
	key := s.key()
	switch first, last := s.first.Load(), s.last.Load(); {
	case key.FlagID < 1 || key.VariantID < 0 || key.SegmentID < 0:
		return fmt.Errorf("the IDs %d, %d, %d are invalid", key.FlagID, key.VariantID, key.SegmentID)
	case !key.Outcome.Fits(key.VariantID) || key.Asked >= askedEnd:
		return fmt.Errorf("the outcome %d of variant %d, or asked %d, is invalid", key.Outcome, key.VariantID, key.Asked)
	case s.stored.Load() < 0 || stored > count:
		return fmt.Errorf("%d of %d evaluations are stored", stored, count)
	case first > last || hourOfMilli(first) != key.Hour || hourOfMilli(last) != key.Hour:
		return fmt.Errorf("evaluations from %d to %d are not in the hour %d", first, last, key.Hour)
	}
	return nil
}

// adoptJournals opens the journals of the database that no process holds, for a store with these
// abilities. It renames and logs damaged files.
func adoptJournals(dir, database string, of abilities, logger *slog.Logger) ([]*arena, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for journals: %w", err)
	}
	var adopted []*arena
	for _, entry := range entries {
		removeUnfinished(dir, database, entry)
		name := journalName.FindStringSubmatch(entry.Name())
		if name == nil || name[1] != database {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		a, err := openJournal(path, database, name[2], of)
		switch {
		case errors.Is(err, errDamaged):
			aside := setAside(path)
			logger.Error("datar: a journal is damaged, its counts are not used; it was renamed", "journal", path, "now", aside, "error", err)
		case err != nil:
			logger.Error("datar: a journal cannot be opened, its counts are stored after the next start", "journal", path, "error", err)
		case a != nil:
			adopted = append(adopted, a)
		}
	}
	return adopted, nil
}

// removeUnfinished removes a file of a process that was killed while it created a journal. The file
// is empty.
func removeUnfinished(dir, database string, entry fs.DirEntry) {
	name, unfinished := strings.CutSuffix(entry.Name(), unfinishedSuffix)
	if match := journalName.FindStringSubmatch(name); !unfinished || match == nil || match[1] != database {
		return
	}
	const creating = time.Minute // far longer than creation takes
	if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > creating {
		_ = os.Remove(filepath.Join(dir, entry.Name()))
	}
}

// setAside renames the file, so that it is not found as a journal, and returns the new name.
func setAside(path string) string {
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.damaged-%d", path, i)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) || i == 1000 {
			if err := os.Rename(path, aside); err != nil {
				return path
			}
			return aside
		}
	}
}
