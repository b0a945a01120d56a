package gormstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

func TestProgressOfRollups(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	day := datar.Hour(490_000).DayStart()
	w := weeks{store: newStore(t, db), db: db, counts: map[datar.Key]int64{}}
	for d := range datar.Hour(15) {
		w.addDay(t, day+24*d)
	}
	if got := w.store.Rollups(); got != (datar.RollupProgress{}) {
		t.Errorf("progress before the first call of Maintain is %+v", got)
	}
	var last datar.RollupProgress
	for range 20 {
		if err := w.store.Maintain(t.Context(), (day + 16*24).Time(), 0); err != nil {
			t.Fatal(err)
		}
		got := w.store.Rollups()
		if got.Made < last.Made || got.Made > got.Due || last.Due != 0 && got.Due != last.Due {
			t.Fatalf("progress is %+v after %+v", got, last)
		}
		if last = got; got.Made == got.Due {
			break
		}
		if got.Made == 0 {
			t.Fatal("nothing was made")
		}
	}
	var rows int64
	if err := db.Table("datar_rollups").Count(&rows).Error; err != nil {
		t.Fatal(err)
	}
	if want := (datar.RollupProgress{Made: int(rows), Due: int(rows), DetailsFrom: day}); last != want {
		t.Errorf("progress at the end is %+v, want %+v", last, want)
	}
}

// A query of all flags ends after a while as long as many rollups are missing, and only then.
func TestQueriesWhileRollupsAreMissing(t *testing.T) {
	t.Parallel()
	store := newStore(t, openSQLite(t))
	hanging := func(tx *gorm.DB) error {
		<-tx.Statement.Context.Done()
		return tx.Statement.Context.Err()
	}

	store.SetMissing(190, 200)
	preparing := (*datar.PreparingError)(nil)
	err := store.OfAllFlags(t.Context(), hanging)
	if !errors.As(err, &preparing) || *preparing != (datar.PreparingError{Made: 10, Due: 200}) {
		t.Errorf("error is %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.OfAllFlags(canceled, hanging); !errors.Is(err, context.Canceled) {
		t.Errorf("error after the client left is %v", err)
	}
	if _, err := store.Totals(t.Context(), datar.TotalsQuery{To: 490_000, GroupBy: datar.ByFlag}); err != nil {
		t.Errorf("a quick query: %v", err)
	}

	unlimited := func(tx *gorm.DB) error {
		if _, limited := tx.Statement.Context.Deadline(); limited {
			t.Error("a query is limited although the rollups that it reads exist")
		}
		return nil
	}
	if err := store.OfAllOutcomes(t.Context(), unlimited); err != nil {
		t.Error(err)
	}
	store.SetMissing(2, 200)
	if err := store.OfAllFlags(t.Context(), unlimited); err != nil {
		t.Error(err)
	}
}

// TestNewestDays checks from which day on the details of all days are added up.
func TestNewestDays(t *testing.T) {
	t.Parallel()
	const day = 24
	due := []int64{40 * day, 39 * day, 38 * day, 37 * day}
	for _, test := range []struct {
		name      string
		had, made []int64
		want      datar.Hour
	}{
		{"none", nil, nil, 0},
		{"the newest", []int64{40 * day}, nil, 40 * day},
		{"with a gap", []int64{40 * day, 39 * day, 37 * day}, nil, 39 * day},
		{"without the newest", []int64{39 * day}, nil, 0},
		{"all", due, nil, 37 * day},
		{"one after the other", nil, []int64{40 * day, 39 * day}, 39 * day},
		{"the newest before others that were there", []int64{39 * day, 38 * day}, []int64{40 * day}, 38 * day},
		{"the gap", []int64{40 * day, 38 * day}, []int64{39 * day}, 38 * day},
		{"a day that is not due", []int64{40 * day}, []int64{30 * day}, 40 * day},
	} {
		if got := gormstore.NewestDays(due, test.had, test.made); got != test.want {
			t.Errorf("%s: from %d, want %d", test.name, got, test.want)
		}
	}
}

func TestPiecesOfARange(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	now := datar.HourOf(time.Now())
	tomorrow := now.DayStart() + 24
	w := weeks{store: newStore(t, db), db: db, counts: map[datar.Key]int64{}}
	w.add(t, datar.Key{FlagID: 1, Hour: tomorrow - 30})
	far := tomorrow + 24*365*5000
	got, err := w.store.Pieces(0, far)
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]datar.Hour{{tomorrow - 30, tomorrow - 24}, {tomorrow - 24, tomorrow}, {tomorrow, far}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pieces (-want +got):\n%s", diff)
	}
}

func TestLongWorkPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		piece := func() { time.Sleep(600 * time.Millisecond) }
		began := time.Now()
		if err := gormstore.Paced(t.Context(), false, piece); err != nil || time.Since(began) != 600*time.Millisecond {
			t.Errorf("short work took %v: %v", time.Since(began), err)
		}
		began = time.Now()
		// The second piece is beyond the first second: it and the third are followed by twice their
		// time.
		if err := gormstore.Paced(t.Context(), false, piece, piece, piece); err != nil || time.Since(began) != 4200*time.Millisecond {
			t.Errorf("long work took %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := gormstore.Paced(t.Context(), true, piece, piece, piece); err != nil || time.Since(began) != 1800*time.Millisecond {
			t.Errorf("long work without pauses took %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1300*time.Millisecond)
		defer cancel()
		if err := gormstore.Paced(ctx, false, piece, piece, piece); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("work after the end of the server: %v", err)
		}
	})
}
