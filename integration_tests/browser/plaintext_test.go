package browser

import (
	"net/http"
	"testing"
)

// TestPlainTextConstraint selects the operators for plain text, saves, and evaluates with the API.
func TestPlainTextConstraint(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.1.c.0.operator", "HASTEXT")
	p.fill("s.1.c.0.value", `"a b (1/2)"`)
	p.has("The quotes are part of the text. Did you mean a b (1/2)?")
	p.press("Use it")
	p.until("the text without quotes", `document.querySelector("[name='s.1.c.0.value']").value === "a b (1/2)"`)
	p.save()
	p.until("the text that was saved", `document.querySelector("[name='s.1.c.0.operator']").selectedOptions[0].innerText === "contains text" && document.querySelector("[name='s.1.c.0.value']").value === "a b (1/2)"`)
	for beta, want := range map[string]string{"has a b (1/2) in it": "green", "a b 1/2": "", "ab(1/2)": ""} {
		answer := s.api(t, http.MethodPost, "/evaluation", object{"flagID": 1, "entityID": "x", "entityContext": object{"beta": beta}})
		if got, _ := answer["variantKey"].(string); got != want {
			t.Errorf("%q gets %q, want %q", beta, got, want)
		}
	}
}

// TestAFormThatIsTooLarge: the page says so, and keeps what is typed.
func TestAFormThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("description", "typed")
	p.has("1 change not saved.")
	p.value(`(() => {
		const fields = document.createElement("fieldset");
		fields.innerHTML = '<input type="hidden" name="x">'.repeat(10_001);
		document.querySelector("form[data-edit]").append(fields);
		return 1;
	})()`)
	p.press("Review and save")
	p.until("the reason", `document.getElementById("errors").innerText.includes("It may have at most 10,000 fields")`)
	p.until("what was typed", `document.querySelector("[name=description]").value === "typed" && !document.getElementById("main").inert`)
	p.value(`document.querySelector("form[data-edit]").lastElementChild.remove(), 1`)
	p.save()
	if got := s.definition(t, 1)["description"]; got != "typed" {
		t.Errorf("saved: %v", got)
	}
}
