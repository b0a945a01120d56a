// Package apidoc renders an OpenAPI 2 description as one HTML page that loads nothing: no script,
// no font and no request to another host.
package apidoc

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the style and the template
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// Policy returns the sources of a Content-Security-Policy that the page needs, starting with
// default-src.
func Policy() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// Render returns the HTML page for a description in JSON. descriptionURL is the URL of the
// description, relative to the page.
func Render(description []byte, descriptionURL string) ([]byte, error) {
	var d document
	if err := json.Unmarshal(description, &d); err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	groups, err := d.groups()
	if err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	page, err := template.New("page").Funcs(template.FuncMap{"markdown": markdown, "anchor": anchor, "indent": indent}).Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("template of the documentation: %w", err)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, map[string]any{
		"Style":          template.CSS(pageCSS), //nolint:gosec // a file of ours
		"Info":           d.Info,
		"BasePath":       d.BasePath,
		"Groups":         groups,
		"Models":         d.models(),
		"DescriptionURL": descriptionURL,
	}); err != nil {
		return nil, fmt.Errorf("render the documentation: %w", err)
	}
	return out.Bytes(), nil
}

// document is the part of a description that the page shows.
type document struct {
	Info struct {
		Title, Version, Description string
	}
	BasePath    string
	Tags        []struct{ Name, Description string }
	Paths       map[string]map[string]json.RawMessage
	Definitions map[string]*schema
}

// group contains the operations of a tag.
type group struct {
	Name, Description string
	Operations        []*operation
}

type operation struct {
	Method, Path         string `json:"-"`
	OperationID          string
	Summary, Description string
	Deprecated           bool
	Tags                 []string
	Parameters           []*parameter
	Responses            map[string]*response
}

type parameter struct {
	Name, In, Description string
	Required              bool
	Schema                *schema // of a body; nil for all other parameters, which have their own type
	schema
}

type response struct {
	Description string
	Schema      *schema
	Examples    map[string]json.RawMessage
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Format               string
	Description          string
	Pattern              string
	Enum                 []any
	Default              any
	Example              json.RawMessage
	Minimum, Maximum     *json.Number
	MinLength, MaxLength *int
	MinItems, MaxItems   *int
	Nullable             bool `json:"x-nullable"`
	Items                *schema
	Properties           map[string]*schema
	Required             []string
}

// methods are the HTTP methods in the order in which the page lists them.
var methods = []string{"get", "head", "post", "put", "patch", "delete", "options"}

// groups returns the operations by their first tag, in the order of the tags and then of the paths.
func (d *document) groups() ([]*group, error) {
	var groups []*group
	byName := map[string]*group{}
	add := func(name, description string) *group {
		g := &group{Name: name, Description: description}
		groups, byName[name] = append(groups, g), g
		return g
	}
	for _, tag := range d.Tags {
		add(tag.Name, tag.Description)
	}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range methods {
			raw, ok := d.Paths[path][method]
			if !ok {
				continue
			}
			o := &operation{Method: strings.ToUpper(method), Path: path}
			if err := json.Unmarshal(raw, o); err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			name := "other"
			if len(o.Tags) > 0 {
				name = o.Tags[0]
			}
			g := byName[name]
			if g == nil {
				g = add(name, "")
			}
			g.Operations = append(g.Operations, o)
		}
	}
	return groups, nil
}

// model is a definition with its properties in order, required ones first.
type model struct {
	Name string
	*schema
}

func (d *document) models() []model {
	var models []model
	for _, name := range slices.Sorted(maps.Keys(d.Definitions)) {
		models = append(models, model{name, d.Definitions[name]})
	}
	return models
}

// property is a row of a model's table.
type property struct {
	Name     string
	Required bool
	*schema
}

// Rows lists the properties of an object, or of the objects in a list, required ones first.
func (s *schema) Rows() []property {
	if s.Items != nil && len(s.Properties) == 0 {
		return s.Items.Rows()
	}
	var rows []property
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		rows = append(rows, property{name, slices.Contains(s.Required, name), s.Properties[name]})
	}
	slices.SortStableFunc(rows, func(a, b property) int {
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		default:
			return 1
		}
	})
	return rows
}

// RefName returns the name of the definition that the schema, or the items of its list, refers to.
// It returns "" if there is no reference.
func (s *schema) RefName() string {
	if s.Items != nil {
		return s.Items.RefName()
	}
	return strings.TrimPrefix(s.Ref, "#/definitions/")
}

// Kind describes the type, such as "list of strings (date-time)".
func (s *schema) Kind() string {
	kind := s.Type
	switch {
	case s.Items != nil && s.Items.RefName() == "":
		kind = "list of " + s.Items.Kind()
	case s.Items != nil:
		kind = "list"
	case s.Ref != "" || kind == "":
		kind = "object"
	}
	if s.Format != "" {
		kind += " (" + s.Format + ")"
	}
	if s.Nullable {
		kind += " or null"
	}
	return kind
}

// Limits describes the accepted values beyond the type.
func (s *schema) Limits() string {
	var limits []string
	add := func(format string, value any) { limits = append(limits, fmt.Sprintf(format, value)) }
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		add("one of %s", strings.Join(values, ", "))
	}
	for _, limit := range []struct {
		format string
		value  *json.Number
	}{{"at least %s", s.Minimum}, {"at most %s", s.Maximum}} {
		if limit.value != nil {
			add(limit.format, *limit.value)
		}
	}
	for _, limit := range []struct {
		format string
		value  *int
	}{
		{"at least %d characters", s.MinLength}, {"at most %d characters", s.MaxLength},
		{"at least %d items", s.MinItems}, {"at most %d items", s.MaxItems},
	} {
		if limit.value != nil {
			add(limit.format, *limit.value)
		}
	}
	if s.Pattern != "" {
		add("matches %s", s.Pattern)
	}
	if s.Default != nil {
		add("default %v", s.Default)
	}
	return strings.Join(limits, "; ")
}

// markdown formats descriptions. It leaves out raw HTML.
func markdown(text string) template.HTML {
	var out bytes.Buffer
	if err := goldmark.Convert([]byte(text), &out); err != nil {
		return template.HTML(template.HTMLEscapeString(text)) //nolint:gosec // escaped
	}
	return template.HTML(out.String()) //nolint:gosec // goldmark escapes, and leaves raw HTML out
}

// anchor returns the ID of an element for its kind and name.
func anchor(kind, name string) string { return kind + "-" + name }

func indent(raw json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return string(raw)
	}
	return out.String()
}
