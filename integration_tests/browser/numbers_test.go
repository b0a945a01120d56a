package browser

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// evaluate evaluates the flag 1 for so many entities.
func (s *server) evaluate(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		s.api(t, http.MethodPost, "/evaluation", object{"flagID": 1, "entityID": fmt.Sprint("e", i), "entityContext": object{"beta": "true"}})
	}
}

func TestLiveTail(t *testing.T) {
	t.Parallel()
	s := start(t, "FLAGR_RECORDER_DATAR_TAIL_ENABLED=true")
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/traffic?days=7")
	p.press("Live tail")
	p.has("Connected, no evaluations yet")
	rows := `document.querySelectorAll("#tail tbody tr")`
	s.evaluate(t, 3)
	p.until("three rows", rows+`.length === 3`)
	p.until("what is in a row", `((cells) => cells[1].querySelector("code").innerText === "green" && cells[2].innerText === "Segment 2" && cells[3].innerText.startsWith("bucket "))(`+rows+`[0].cells)`)
	p.until("the counts, announced", `document.querySelector("#tail [role=status]").innerText === "3 received, 0 skipped"`)
	// Paused with the keyboard: new evaluations are counted, and shown once the tail continues.
	p.run(chromedp.KeyEvent("p"))
	p.has("Paused")
	s.evaluate(t, 2)
	p.run(chromedp.KeyEvent(kb.Tab))
	if n := p.value(rows + `.length`); n != "3" {
		t.Errorf("%s rows while it is paused", n)
	}
	p.press("Pause")
	p.until("five rows", rows+`.length === 5`)
	p.value(`document.querySelector("#c-days").value = "30", document.querySelector("#c-days").dispatchEvent(new Event("change", {bubbles: true})), 1`)
	p.until("the tail, with another window", `location.search.includes("days=30") && document.querySelector("#tail")`)
	p.press("Close")
	p.until("the page without the tail", `!document.querySelector("#tail") && location.search.includes("days=30")`)
}

// TestLiveTailThatIsOff checks that the section names the setting, and that the page sends no
// request to the API.
func TestLiveTailThatIsOff(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/traffic")
	p.press("Live tail")
	p.has("FLAGR_RECORDER_DATAR_TAIL_ENABLED=true")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if r == "GET /api/v1/datar/flags/1/tail" {
			t.Error("the page requested a stream that is off")
		}
	}
}

// TestHolesOfAFlag turns records off, which makes a hole. The Server page must list it with the
// flag and the user.
func TestHolesOfAFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.value(`document.querySelector("[name=records]").click(), 1`)
	p.save()
	p.visit("/ui/server")
	p.until("the hole", `(() => {
		const row = [...document.querySelectorAll("tr")].find((r) => r.cells[0].innerText === "checkout-button");
		return row ? row.cells[2].innerText === "still off" && row.cells[3].innerText.startsWith("records off") : (location.reload(), false);
	})()`)
}
