package apidoc_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/apidoc"
)

const description = `{
  "swagger": "2.0", "basePath": "/shop/api/v1",
  "info": {"title": "Shop", "version": "7", "description": "Sells <script>alert(1)</script> things.\n\n- one\n- two"},
  "tags": [{"name": "order", "description": "What is bought."}, {"name": "unused"}],
  "paths": {
    "/orders/{id}": {"put": {"operationId": "putOrder", "tags": ["order"], "summary": "Change an order", "parameters": [
        {"name": "id", "in": "path", "type": "integer", "format": "int64", "minimum": 1, "required": true},
        {"name": "kind", "in": "query", "type": "array", "items": {"type": "string"}, "maxItems": 3, "description": "Which ` + "`kinds`" + `."},
        {"name": "body", "in": "body", "schema": {"$ref": "#/definitions/order"}}],
      "responses": {"200": {"description": "Done.", "schema": {"type": "array", "items": {"$ref": "#/definitions/order"}}, "examples": {"application/json": [{"note": "</pre><b>"}]}},
                    "default": {"description": "An error."}}}},
    "/ping": {"get": {"operationId": "ping", "summary": "Ping", "responses": {"200": {"description": "Pong."}}}}
  },
  "definitions": {"order": {"type": "object", "required": ["state"], "properties": {
    "note": {"type": "string", "x-nullable": true, "maxLength": 9}, "state": {"type": "string", "enum": ["open", "sent"]}}}}
}`

func TestPage(t *testing.T) {
	t.Parallel()
	rendered, err := apidoc.Render([]byte(description), "../swagger.json")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(rendered)), " ")
	for _, want := range []string{
		"/shop/api/v1", "<li>two</li>", `href="../swagger.json"`, `id="op-putOrder"`, `href="#model-order"`, `id="model-order"`,
		"at least 1", "list of string", "at most 3 items", "<code>kinds</code>", "one of open, sent", "string or null", "&lt;/pre&gt;&lt;b&gt;", "Pong.",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	if strings.Index(page, "<code>state</code>") > strings.Index(page, "<code>note</code>") {
		t.Error("a field that is required comes after one that is not")
	}
	for _, never := range []string{"<script", "alert(1)</script>", "unused", "<no value>", "ZgotmplZ"} {
		if strings.Contains(page, never) {
			t.Errorf("%q is on the page", never)
		}
	}
	for _, target := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+target[1]+`"`) {
			t.Errorf("a link leads to #%s, which is not there", target[1])
		}
	}
}

func TestWhatIsNoDescription(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", `{"paths": {"/a": {"get": 7}}}`} {
		if _, err := apidoc.Render([]byte(text), "x"); err == nil {
			t.Errorf("%q is rendered", text)
		}
	}
}
