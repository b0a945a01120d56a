package evallog_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// Evaluations that are dense share a reading of the clock.
func TestTheTimeOfManyEvaluations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		many := func() {
			for range 1000 {
				engine.Record(on("known"))
			}
		}
		time.Sleep(900 * time.Microsecond)
		many()
		time.Sleep(200 * time.Microsecond) // the next millisecond has begun, and the reading is still shared
		many()
		engine.Record(on("new"))
		second := time.Now().UnixMilli()
		time.Sleep(40 * time.Millisecond) // it is not shared for longer, whoever is quiet meanwhile
		engine.Record(on("late"))
		engine.Record(on("new"))
		flush(t, engine)
		rows := writer.Delivered()[0].Rows
		if known := rows[0]; known.Count != 2000 || known.First != second-1 || known.Last < second-1 || known.Last > second {
			t.Errorf("the known key is %+v, want a last evaluation at %d or a millisecond before", known, second)
		}
		if fresh := rows[1]; fresh.First != second || fresh.Last != second+40 {
			t.Errorf("the new key is %+v, want it to begin at %d and end 40 ms later", fresh, second)
		}
		if late := rows[2]; late.First != second+40 {
			t.Errorf("the late key is %+v, want %d", late, second+40)
		}
	})
}

func TestDenseEvaluationsAroundTheBorderOfAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		border := time.Now().Truncate(time.Hour).Add(time.Hour)
		time.Sleep(time.Until(border) - 20*time.Millisecond)
		before := 0
		for time.Now().Before(border) {
			for range 100 {
				engine.Record(on("flag"))
				before++
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Millisecond)
		flush(t, engine)
		engine.Record(on("flag"))
		flush(t, engine)
		batches := writer.Delivered()
		if row := batches[0].Rows[0]; row.Count != int64(before) || row.Last < border.UnixMilli()-2 || row.Last >= border.UnixMilli() {
			t.Errorf("before the border: %+v, want %d until its last milliseconds", row, before)
		}
		if row := batches[1].Rows[0]; row.Count != 1 || row.First < border.UnixMilli() {
			t.Errorf("after it: %+v", row)
		}
	})
}

// The counts of an hour must not move to the next because something was recorded there before the
// next flush.
func TestAnHourThatEndsBetweenTwoFlushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		engine.Record(on("flag"))
		_ = engine.Flush(t.Context()) // from here on counts stay in the tables
		border := time.Now().Truncate(time.Hour).Add(time.Hour)
		record := func(at time.Time, times int) {
			time.Sleep(time.Until(at))
			for range times {
				engine.Record(on("flag"))
			}
		}
		record(border.Add(-30*time.Minute), 2)
		ahead := on("ahead")
		ahead.Time = border.Add(time.Minute) // no reason to end the hour
		engine.Record(ahead)
		record(border.Add(-time.Second), 4)
		record(border, 8)
		record(border.Add(time.Second), 16)
		checkStats(t, engine.Stats(), 32)
		writer.Fail(nil)
		flush(t, engine)
		var before, after int64
		for _, b := range writer.Delivered() {
			for _, r := range b.Rows {
				if r.Last < border.UnixMilli() {
					before += r.Count
				} else {
					after += r.Count
				}
			}
		}
		if before != 1+2+4 || after != 1+8+16 {
			t.Errorf("%d evaluations are counted before the border and %d after it, want 7 and 25", before, after)
		}
		checkStats(t, engine.Stats(), 32)
	})
}
