package app_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/flagr-datar/flagr-datar"
	top    = "../.."
)

// goList runs go list in the top folder and returns the words of its output.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	return strings.Fields(strings.Join(goListLines(t, args...), "\n"))
}

func goListLines(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			stderr = exit.Stderr
		}
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestDatarKnowsNothingOfTheServerAroundIt(t *testing.T) {
	t.Parallel()
	for _, dependency := range goList(t, "-deps", "./pkg/datar") {
		for _, forbidden := range []string{"gorm.io", "github.com/go-openapi", "swagger_gen", "pkg/handler", "pkg/config"} {
			if strings.Contains(dependency, forbidden) {
				t.Errorf("pkg/datar depends on %s", dependency)
			}
		}
		standard := !strings.Contains(strings.Split(dependency, "/")[0], ".")
		if !standard && dependency != module+"/pkg/datar" && !strings.HasPrefix(dependency, "golang.org/x/sys") {
			t.Errorf("pkg/datar depends on %s, which is neither the standard library nor golang.org/x/sys", dependency)
		}
	}
}

// Applications embed evallog: it must bring nothing with it.
func TestEvallogImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"evallog", "evallog/evallogtest"} {
		for _, dependency := range goList(t, "-deps", "./pkg/"+name) {
			first, _, _ := strings.Cut(dependency, "/")
			if strings.Contains(first, ".") && dependency != module+"/pkg/evallog" && dependency != module+"/pkg/"+name {
				t.Errorf("pkg/%s depends on %s", name, dependency)
			}
		}
	}
	for _, dependency := range goList(t, "-deps", "./pkg/evallog/evallogof") {
		inModule, ok := strings.CutPrefix(dependency, module+"/")
		if ok && !strings.HasPrefix(inModule, "pkg/evallog") {
			t.Errorf("pkg/evallog/evallogof depends on %s", inModule)
		}
	}
}

// Whoever imports these gets a few packages of ours, golang.org/x/sys, and nothing else.
func TestThePluginIsLight(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string][]string{
		"pkg/datar":           {"pkg/datar"},
		"pkg/datar/datarhttp": {"pkg/datar", "pkg/datar/datarhttp"},
		"pkg/datar/memstore":  {"pkg/datar", "pkg/datar/ingest", "pkg/datar/memstore"},
	} {
		var ours []string
		for _, dependency := range goList(t, "-deps", "./"+pkg) {
			inModule, isOurs := strings.CutPrefix(dependency, module+"/")
			switch {
			case isOurs:
				ours = append(ours, inModule)
			case strings.Contains(strings.Split(dependency, "/")[0], ".") && !strings.HasPrefix(dependency, "golang.org/x/sys"):
				t.Errorf("%s depends on %s", pkg, dependency)
			}
		}
		if slices.Sort(ours); !slices.Equal(ours, want) {
			t.Errorf("%s depends on %q of this module, want %q", pkg, ours, want)
		}
	}
}

// rooms are the import rules by folder under pkg, for the packages in it and below it unless these have rules of their
// own.
var rooms = map[string]struct {
	// allowed are the only packages of this module that may be imported, directly or through others; nil allows all that
	// are not forbidden.
	allowed []string
	// forbidden are packages and folders, of this module and of others, that must not be imported, directly or through
	// others.
	forbidden []string
}{
	"entity":       {allowed: []string{}},
	"config":       {allowed: []string{}},
	"eval":         {forbidden: []string{"pkg/store", "pkg/handler", "pkg/config", "pkg/datar", "swagger_gen"}},
	"evalcache":    {forbidden: []string{"pkg/store", "pkg/handler", "pkg/config", "pkg/datar", "swagger_gen"}},
	"store":        {forbidden: []string{"pkg/handler", "pkg/config", "pkg/datar", "pkg/eval", "swagger_gen"}},
	"recorder":     {forbidden: []string{"pkg/handler", "pkg/store", "pkg/config", "pkg/datar", "pkg/eval", "swagger_gen"}},
	"handler":      {forbidden: []string{"pkg/app", "pkg/web", "pkg/ui", "pkg/ofrep", "pkg/provider"}},
	"notification": {forbidden: []string{"pkg/app", "pkg/handler", "pkg/config", "pkg/store", "pkg/datar", "pkg/eval", "swagger_gen"}},
	"web":          {forbidden: []string{"pkg/handler", "pkg/store", "pkg/app", "pkg/ui"}},

	// Other servers mount datar and the packages below it.
	"datar": {forbidden: []string{"pkg/app", "pkg/handler", "pkg/config", "pkg/store", "pkg/eval", "pkg/insight", "pkg/web", "swagger_gen", "github.com/go-openapi"}},
	// Applications embed evallog.
	"evallog":             {forbidden: []string{"pkg/app", "pkg/handler", "pkg/config", "pkg/store", "pkg/eval", "pkg/datar", "pkg/web", "swagger_gen"}},
	"evallog/datarwriter": {forbidden: []string{"pkg/handler", "pkg/config", "pkg/store", "pkg/eval", "pkg/datar/gormstore", "swagger_gen"}},

	// A second path of evaluation requests, without the generated one.
	"fastpath": {allowed: []string{"pkg/budget", "pkg/entity", "pkg/eval"}, forbidden: []string{"github.com/go-openapi", "gorm.io"}},
	// Instruments read what components publish, and components do not know them.
	"metrics": {
		allowed: []string{
			"pkg/budget", "pkg/config", "pkg/datar", "pkg/datar/datarprom", "pkg/entity", "pkg/etag", "pkg/eval", "pkg/evalcache",
			"pkg/fastpath", "pkg/ofrep", "pkg/recorder", "pkg/web",
		},
		forbidden: []string{"github.com/go-openapi", "gorm.io"},
	},
	// What several rooms use, and what uses none of them.
	"budget":  {allowed: []string{}, forbidden: []string{"net/http", "gorm.io", "github.com/go-openapi"}},
	"process": {allowed: []string{}, forbidden: []string{"net/http", "gorm.io", "github.com/go-openapi"}},
	"etag":    {allowed: []string{}, forbidden: []string{"net/http", "gorm.io", "github.com/go-openapi"}},
	// Commands are small programs around what the server uses for the same purpose.
	"cmd": {allowed: []string{"pkg/entity", "pkg/eval", "pkg/evalcache"}, forbidden: []string{"gorm.io", "github.com/go-openapi"}},

	// Answers are computed from values: what is stored and who asks over HTTP is the business of the callers.
	"insight": {
		allowed:   []string{"pkg/datar", "pkg/entity", "pkg/eval"},
		forbidden: []string{"net/http", "github.com/go-openapi", "gorm.io/driver", "github.com/glebarez"},
	},
	// The page of the API is made from its description alone.
	"apidoc": {allowed: []string{}, forbidden: []string{"net/http", "gorm.io", "github.com/go-openapi"}},
	// Pages read the store through interfaces of their own.
	"ui": {
		allowed:   []string{"pkg/ui", "pkg/ui/chart", "pkg/budget", "pkg/insight", "pkg/datar", "pkg/entity", "pkg/eval"},
		forbidden: []string{"github.com/go-openapi"},
	},
	// Charts take numbers and labels.
	"ui/chart": {allowed: []string{"pkg/ui/chart"}, forbidden: []string{"net/http", "gorm.io", "github.com/go-openapi"}},
	// OFREP waits for newer flags, which evalcache has, and reads contexts as the fast path does.
	"ofrep": {
		allowed:   []string{"pkg/budget", "pkg/entity", "pkg/etag", "pkg/eval", "pkg/evalcache", "pkg/fastpath"},
		forbidden: []string{"github.com/go-openapi", "gorm.io"},
	},
	// Programs embed the provider: it evaluates a snapshot that it polls, and reports with evallog.
	"provider": {
		allowed:   []string{"pkg/entity", "pkg/eval", "pkg/evalcache", "pkg/evallog", "pkg/evallog/evallogof", "pkg/provider"},
		forbidden: []string{"github.com/go-openapi", "gorm.io/driver", "github.com/glebarez"},
	},
	"datar/chstore": {
		allowed:   []string{"pkg/datar", "pkg/datar/ingest"},
		forbidden: []string{"gorm.io", "github.com/go-openapi"},
	},
}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	patterns := []string{"-f", `{{.ImportPath}} {{join .Deps " "}}`}
	for _, folder := range goList(t, "-m", "-f", "{{.Dir}}") { // of the modules in go.work
		patterns = append(patterns, folder+"/...")
	}
	for _, line := range goListLines(t, patterns...) {
		packages := strings.Fields(line)
		pkg := strings.TrimPrefix(packages[0], module+"/")
		if !strings.HasPrefix(pkg, "pkg/") {
			continue
		}
		room := roomOf(pkg)
		if used[room] = true; room == "" {
			if pkg != "pkg/app" { // which imports everything
				t.Errorf("%s has no import rules", pkg)
			}
			continue
		}
		rule := rooms[room]
		for _, dependency := range packages[1:] {
			inModule, ours := strings.CutPrefix(dependency, module+"/")
			switch {
			case slices.ContainsFunc(rule.forbidden, func(folder string) bool { return inModule == folder || strings.HasPrefix(inModule, folder+"/") }):
				t.Errorf("%s depends on %s", pkg, inModule)
			case ours && rule.allowed != nil && !slices.Contains(rule.allowed, inModule):
				t.Errorf("%s depends on %s: of this module it may import %q", pkg, inModule, rule.allowed)
			}
		}
	}
	for room := range rooms {
		if !used[room] {
			t.Errorf("there is no package in %s", room)
		}
	}
}

// roomOf gives the folder whose rules apply to a package: the longest that it is in.
func roomOf(pkg string) string {
	for folder := strings.TrimPrefix(pkg, "pkg/"); folder != "."; folder = path.Dir(folder) {
		if _, ok := rooms[folder]; ok {
			return folder
		}
	}
	return ""
}

// Functions of pkg/insight get the time from their callers, so that the same counts give the same answer.
func TestOnlyCallersOfInsightReadTheClock(t *testing.T) {
	t.Parallel()
	for name, file := range sources(t) {
		if !strings.HasPrefix(name, "insight/") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && (isCall(call, "time", "Now") || isCall(call, "time", "Since") || isCall(call, "time", "Until")) {
				t.Errorf("pkg/%s reads the clock", name)
			}
			return true
		})
	}
}

func TestOnlyTheWiringImportsApp(t *testing.T) {
	t.Parallel()
	lines := goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}}>{{.}}{{"\n"}}{{end}}`, "./...")
	for _, line := range lines {
		from, to, _ := strings.Cut(line, ">")
		if to == module+"/pkg/app" && from != module+"/swagger_gen/restapi" {
			t.Errorf("%s imports pkg/app", from)
		}
	}
	if !slices.Contains(lines, module+"/swagger_gen/restapi>"+module+"/pkg/app") {
		t.Error("the wiring does not import pkg/app: the test looks in the wrong place")
	}
}

// sources parses the files under pkg that are no tests, by their path under pkg.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	root := filepath.Join(top, "pkg")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no sources found")
	}
	return files
}

func TestOnlyConfigReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	readers := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	for name, file := range sources(t) {
		if strings.HasPrefix(name, "config/") || strings.HasPrefix(name, "datar/gormstore/testdb/") { // which only tests import
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && isIdent(selector.X, "os") && slices.Contains(readers, selector.Sel.Name) {
				t.Errorf("pkg/%s calls os.%s", name, selector.Sel.Name)
			}
			return true
		})
	}
}

// TestNoPackageLevelState allows package variables only where nothing can change them, or where nothing does: error
// sentinels, compiled patterns, interface assertions, embedded files, and literals that no code of the package writes.
func TestNoPackageLevelState(t *testing.T) {
	t.Parallel()
	tables := map[string][]string{} // by folder, the variables that hold literals
	byFolder := map[string][]*ast.File{}
	for name, file := range sources(t) {
		folder := filepath.Dir(name)
		byFolder[folder] = append(byFolder[folder], file)
		for _, declaration := range file.Decls {
			g, ok := declaration.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			embedded := g.Doc != nil && strings.Contains(g.Doc.Text()+directives(g.Doc), "//go:embed")
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, ident := range v.Names {
					if ident.Name == "_" || embedded {
						continue
					}
					if i >= len(v.Values) {
						t.Errorf("pkg/%s: variable %s has no value of its own", name, ident.Name)
						continue
					}
					switch value := v.Values[i].(type) {
					case *ast.CompositeLit:
						tables[folder] = append(tables[folder], ident.Name)
					case *ast.CallExpr:
						if !isCall(value, "errors", "New") && !isCall(value, "stderrors", "New") && !isCall(value, "regexp", "MustCompile") && !isCall(value, "strings", "NewReplacer") {
							t.Errorf("pkg/%s: variable %s holds the result of a call", name, ident.Name)
						}
					default:
						t.Errorf("pkg/%s: variable %s is not a sentinel, a pattern or a table", name, ident.Name)
					}
				}
			}
		}
	}
	for folder, names := range tables {
		for _, file := range byFolder[folder] {
			ast.Inspect(file, func(n ast.Node) bool {
				for _, written := range writtenBy(n) {
					if ident := root(written); ident != nil && slices.Contains(names, ident.Name) && !isLocal(file, ident) {
						t.Errorf("pkg/%s: table %s is written to", folder, ident.Name)
					}
				}
				return true
			})
		}
	}
}

// TestLocksShowInNames requires that a mutex is embedded in a field "mu struct { sync.Mutex; ... }" with what it protects.
// A mutex of another name protects something that is no field.
func TestLocksShowInNames(t *testing.T) {
	t.Parallel()
	protectNoField := map[string]string{
		"recorder/health.go:reporting": "the order of log lines",
		"datar/forward/keys.go:file":   "a file",
	}
	for name, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			structure, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range structure.Fields.List {
				if !isMutex(field.Type) {
					if inner, ok := field.Type.(*ast.StructType); ok && slices.ContainsFunc(inner.Fields.List, isEmbeddedMutex) && !isIdent(field.Names[0], "mu") {
						t.Errorf("pkg/%s: the fields of a mutex are named %s, want mu", name, field.Names[0].Name)
					}
					continue
				}
				for _, ident := range field.Names {
					if protectNoField[name+":"+ident.Name] == "" {
						t.Errorf(`pkg/%s: a mutex is named %s, want mu struct { sync.Mutex; ... } around what it protects`, name, ident.Name)
					}
				}
			}
			return true
		})
	}
}

func isEmbeddedMutex(field *ast.Field) bool { return len(field.Names) == 0 && isMutex(field.Type) }

func isMutex(e ast.Expr) bool {
	selector, ok := e.(*ast.SelectorExpr)
	return ok && isIdent(selector.X, "sync") && (selector.Sel.Name == "Mutex" || selector.Sel.Name == "RWMutex")
}

// directives gives the comment's lines that Text leaves out, such as //go:embed.
func directives(comment *ast.CommentGroup) string {
	var lines []string
	for _, c := range comment.List {
		lines = append(lines, c.Text)
	}
	return strings.Join(lines, "\n")
}

// writtenBy lists the expressions that a statement assigns to, takes the address of, deletes from or clears.
func writtenBy(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if (isIdent(n.Fun, "delete") || isIdent(n.Fun, "clear")) && len(n.Args) > 0 {
			return n.Args[:1]
		}
	}
	return nil
}

// root is the variable that an expression such as table[key].field begins with, nil if it begins with something else.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// isLocal reports whether the function around the identifier declares a variable of that name.
func isLocal(file *ast.File, ident *ast.Ident) bool {
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || ident.Pos() < function.Pos() || ident.Pos() > function.End() {
			continue
		}
		local := false
		declares := func(e ast.Expr) { local = local || isIdent(e, ident.Name) }
		ast.Inspect(function, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, e := range n.Lhs {
						declares(e)
					}
				}
			case *ast.RangeStmt:
				if n.Tok == token.DEFINE {
					declares(n.Key)
					declares(n.Value)
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					declares(name)
				}
			case *ast.Field:
				for _, name := range n.Names {
					declares(name)
				}
			}
			return true
		})
		return local
	}
	return false
}

func isIdent(e ast.Expr, name string) bool {
	ident, ok := e.(*ast.Ident)
	return ok && ident.Name == name
}

func isCall(c *ast.CallExpr, pkg, function string) bool {
	selector, ok := c.Fun.(*ast.SelectorExpr)
	return ok && isIdent(selector.X, pkg) && selector.Sel.Name == function
}

// maxFunctionLines is the most lines of a function, so that it can be read at once.
const maxFunctionLines = 80

func TestOnlyShortFunctions(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"pkg", "integration_tests"} {
		err := filepath.WalkDir(filepath.Join(top, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil || ast.IsGenerated(file) {
				return err
			}
			for _, declaration := range file.Decls {
				function, ok := declaration.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if lines := files.Position(function.End()).Line - files.Position(function.Pos()).Line + 1; lines > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, want at most %d", path, function.Name.Name, lines, maxFunctionLines)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
