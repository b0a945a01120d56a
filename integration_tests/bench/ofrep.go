package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// The limits for OFREP.
const (
	wantOneFlagRatio     = 1.25
	wantPerFlagMicro     = 0.25
	wantNotModifiedRatio = 1.3
	wantStreamKiB        = 40

	ofrepFlags   = 1000
	ofrepStreams = 1000
	// ofrepShare is the divisor for the number of requests for all flags, which take longer than
	// single evaluations.
	ofrepShare = 20
)

const ofrepContext = `{"context":{"targetingKey":"user-1001","age":30,"country":"FR","plan":"free"}}`

// measureOFREP measures one flag, all flags, and a response by entity tag, compared with the bare
// server. Then it measures the memory of open event streams.
func measureOFREP(o options, dir string, out io.Writer) (err error) {
	file := filepath.Join(dir, "flags.json")
	if err := os.WriteFile(file, ofrepDocument(ofrepFlags), 0o600); err != nil {
		return err
	}
	var running fleet
	defer func() { running.stop() }()
	p, err := running.startFlagr(o.server, dir, append([]string{"FLAGR_DB_DBDRIVER=json_file", "FLAGR_DB_DBCONNECTIONSTR=" + file,
		"FLAGR_RECORDER_ENABLED=false", "FLAGR_OFREP_EVENTS_MAX=2000"}, o.env...)...)
	if err != nil {
		return err
	}
	root := strings.TrimSuffix(p.url, "/api/v1") + "/ofrep/v1"
	all := root + "/evaluate/flags"
	tag, err := entityTag(all)
	if err != nil {
		return err
	}
	targets := []*target{
		{name: "one flag", process: p, requests: o.requests},
		{name: fmt.Sprintf("all of %d flags", ofrepFlags), process: p, requests: max(1, o.requests/ofrepShare)},
		{name: "304 by entity tag", process: p, requests: o.requests},
		{name: "bare server", requests: o.requests},
	}
	defer func() {
		for _, t := range targets {
			if t.load != nil {
				err = errors.Join(err, t.load.close())
			}
		}
	}()
	one, byKey, byTag, bare := targets[0], targets[1], targets[2], targets[3]
	if one.load, err = newLoad(all+"/flag-500", []byte(ofrepContext), o.connections); err != nil {
		return err
	}
	if byKey.load, err = newLoad(all, []byte(ofrepContext), o.connections); err != nil {
		return err
	}
	if byTag.load, err = newLoad(all, []byte(ofrepContext), o.connections, "If-None-Match: "+tag); err != nil {
		return err
	}
	if bare.process, err = running.startBare(one.load.size); err != nil {
		return err
	}
	if bare.load, err = newLoad(bare.process.url, []byte(ofrepContext), o.connections); err != nil {
		return err
	}
	taken := beginProfile(p, o.profilePart(dir, "ofrep"), ofrepSeconds)
	if err := measure(targets, o.rounds); err != nil {
		return err
	}
	if err := <-taken; err != nil {
		return fmt.Errorf("take the profile: %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "\nOFREP\tCPU µs/request\tratio to bare\tCPU µs/flag, if bare took 17.6\twanted\t")
	ratio := func(t *target) float64 {
		ratios := make([]float64, len(t.micros))
		for i := range ratios {
			ratios[i] = t.micros[i] / bare.micros[i]
		}
		return median(ratios)
	}
	_, _ = fmt.Fprintf(w, "bare server\t%.1f\t1.00\t\t\t\n", median(bare.micros))
	_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.2f\t\t%s\t\n", one.name, median(one.micros), ratio(one), verdict(ratio(one), wantOneFlagRatio))
	perFlag := (ratio(byKey) - 1) * referenceMicro / ofrepFlags
	_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.2f\t%.3f\t%s\t\n", byKey.name, median(byKey.micros), ratio(byKey), perFlag, verdict(perFlag, wantPerFlagMicro))
	_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.2f\t\t%s\t\n", byTag.name, median(byTag.micros), ratio(byTag), verdict(ratio(byTag), wantNotModifiedRatio))
	if err := w.Flush(); err != nil {
		return err
	}
	perStream, err := streamMemory(p, root+"/events")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d open event streams: %.1f KiB each, %s\n", ofrepStreams, perStream, verdict(perStream, wantStreamKiB))
	return err
}

// ofrepDocument returns a document with flags that depend on constraints and on the bucket.
func ofrepDocument(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"Flags":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Key":"flag-%d","Enabled":true,"SnapshotID":%d,"Variants":[{"Key":"on","Attachment":{"color":"#1f6feb"}},{"Key":"off"}],"Segments":[
			{"RolloutPercent":100,"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"DE\""}],"Distributions":[{"VariantKey":"on","Percent":100}]},
			{"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":50},{"VariantKey":"off","Percent":50}]}]}`, i, i+1)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// entityTag returns the entity tag of the response with all flags.
func entityTag(target string) (string, error) {
	response, err := http.Post(target, "application/json", strings.NewReader(ofrepContext)) //nolint:noctx // the server is on this machine
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.Header.Get("ETag"), errors.Join(err, response.Body.Close())
}

// streamMemory opens streams, and returns the growth of the server's memory per stream, in KiB.
func streamMemory(p *process, target string) (kib float64, err error) {
	before, err := p.resident()
	if err != nil {
		return 0, err
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
	var streams []net.Conn
	defer func() {
		for _, s := range streams {
			err = errors.Join(err, s.Close())
		}
	}()
	for range ofrepStreams {
		c, err := net.Dial("tcp", host) //nolint:noctx // the server is on this machine
		if err != nil {
			return 0, err
		}
		streams = append(streams, c)
		if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
			return 0, err
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
			return 0, fmt.Errorf("a stream is answered with %q: %w", line, err)
		}
	}
	after, err := p.resident()
	return float64(after-before) / 1024 / ofrepStreams, err
}
