package eval_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// TestCutAttachmentsAreNamed reads attachments as they come from a database that had no limit.
func TestCutAttachmentsAreNamed(t *testing.T) {
	t.Parallel()
	for levels, named := range map[int]bool{9_998: true, 1_001: true, 500: false, 3: false} {
		v := entity.Variant{Key: "deep"}
		v.ID = 7
		if err := v.Attachment.Scan(strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)); err != nil {
			t.Fatal(err)
		}
		f := entity.Flag{Key: "k", Variants: []entity.Variant{v}}
		f.ID = 5
		problems := eval.Compile([]entity.Flag{f}).Problems()
		if got := len(problems) == 1 && strings.Contains(problems[0].Error(), "flag 5 (k): attachment of variant 7 (deep) nests"); got != named || !named && len(problems) > 0 {
			t.Errorf("%d levels: problems %v, want one: %t", levels, problems, named)
		}
	}
}

func TestDeepContextsOfExposuresAreRefused(t *testing.T) {
	t.Parallel()
	service := setupWith(t, eval.Options{}, taggedFlags(1)...).Service
	for levels, refused := range map[int]int{100: 0, 101: 1} {
		var context any
		if err := json.Unmarshal([]byte(strings.Repeat(`{"a":`, levels)+"1"+strings.Repeat("}", levels)), &context); err != nil {
			t.Fatal(err)
		}
		_, errs, err := service.Expose(t.Context(), []eval.Exposure{{FlagID: 1, EntityID: "e", EntityContext: context}})
		if err != nil || len(errs) != refused || refused > 0 && !strings.Contains(errs[0].Err.Error(), "100 levels") {
			t.Errorf("%d levels: %v, %v, want %d refused", levels, errs, err, refused)
		}
	}
}
