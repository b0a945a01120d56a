package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/flagr-datar/flagr-datar/integration_tests/apicall"
)

// load sends one request repeatedly. It does less work for each than an http.Client, because it
// shares the machine with the measured server.
type load struct {
	request     []byte
	connections []*connection
	size        int // of a response body
}

type connection struct {
	net.Conn
	reader *bufio.Reader
}

// newLoad opens connections and sends the request once on each. The response must have the status
// 200 or 304. The connections stay open until the load is closed. Headers are whole lines.
func newLoad(target string, body []byte, connections int, headers ...string) (*load, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: %d\r\n",
		u.RequestURI(), u.Host, len(body))
	for _, line := range headers {
		request.WriteString(line + "\r\n")
	}
	request.WriteString("\r\n")
	request.Write(body)
	l := &load{request: request.Bytes()}
	for range connections {
		c, err := net.Dial("tcp", u.Host) //nolint:noctx // the servers are on this machine
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		l.connections = append(l.connections, &connection{Conn: c, reader: bufio.NewReaderSize(c, 1<<16)})
		if l.size, err = l.connections[len(l.connections)-1].exchange(l.request); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l *load) close() error {
	var errs []error
	for _, c := range l.connections {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// run sends n requests and reads their responses.
func (l *load) run(n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	return l.each(func(c *connection) error {
		for left.Add(-1) >= 0 {
			if _, err := c.exchange(l.request); err != nil {
				return err
			}
		}
		return nil
	})
}

// each calls use for all connections in parallel.
func (l *load) each(use func(*connection) error) error {
	errs := make([]error, len(l.connections))
	var group sync.WaitGroup
	for i, c := range l.connections {
		group.Go(func() { errs[i] = use(c) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// exchange sends a request, reads the response, and returns the length of its body.
func (c *connection) exchange(request []byte) (int, error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotModified {
		return 0, fmt.Errorf("the answer is %s", response.Status)
	}
	return int(n), response.Body.Close()
}

type object = map[string]any

// flagKey is the key of the evaluated flag: 3 variants, 2 segments, each with one constraint.
const flagKey = "bench"

// createFlag creates the flag and waits until it can be evaluated.
func createFlag(api string) error {
	f, err := send(api+"/flags", http.MethodPost, object{"key": flagKey, "description": "for the benchmark"})
	if err != nil {
		return err
	}
	path := fmt.Sprintf("%s/flags/%v", api, f["id"])
	var distributions []object
	for i, percent := range []int{34, 33, 33} {
		key := fmt.Sprintf("variant_%c", 'a'+i)
		v, err := send(path+"/variants", http.MethodPost, object{"key": key, "attachment": object{"color": "#1f6feb", "size": i}})
		if err != nil {
			return err
		}
		distributions = append(distributions, object{"variantID": v["id"], "variantKey": key, "percent": percent})
	}
	for _, constraint := range []object{
		{"property": "country", "operator": "EQ", "value": `"DE"`},
		{"property": "age", "operator": "GTE", "value": "18"},
	} {
		s, err := send(path+"/segments", http.MethodPost, object{"description": "segment", "rolloutPercent": 100})
		if err != nil {
			return err
		}
		segment := fmt.Sprintf("%s/segments/%v", path, s["id"])
		if _, err := send(segment+"/constraints", http.MethodPost, constraint); err != nil {
			return err
		}
		if _, err := send(segment+"/distributions", http.MethodPut, object{"distributions": distributions}); err != nil {
			return err
		}
	}
	if _, err := send(path, http.MethodPut, object{"dataRecordsEnabled": true}); err != nil {
		return err
	}
	if _, err := send(path+"/enabled", http.MethodPut, object{"enabled": true}); err != nil {
		return err
	}
	return poll("the flag to be evaluated", func() bool {
		result, err := send(api+"/evaluation", http.MethodPost, json.RawMessage(singleBody()))
		variant, _ := result["variantKey"].(string)
		return err == nil && strings.HasPrefix(variant, "variant_")
	})
}

// singleBody returns a request for one entity, which the second segment matches.
func singleBody() []byte {
	return []byte(`{"entityID":"user-1001","entityType":"user","entityContext":{"age":30,"country":"FR"},"flagKey":"` + flagKey + `"}`)
}

// batchBody returns a request for n entities. The first segment matches half of them.
func batchBody(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"entities":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		country := [...]string{"FR", "DE"}[i%2]
		fmt.Fprintf(&b, `{"entityID":"user-%d","entityType":"user","entityContext":{"age":%d,"country":"%s"}}`, 1000+i, 20+i%50, country)
	}
	b.WriteString(`],"flagKeys":["` + flagKey + `"]}`)
	return b.Bytes()
}

// send calls the API of a server on this machine with JSON.
func send(target, method string, body any) (object, error) {
	return apicall.JSON(context.Background(), method, target, body)
}
