package apidoc

import (
	"encoding/json"
	"fmt"
)

// Routes returns the part of a flattened description that a generated API needs to route and read
// requests: paths, parameters, tags, media types and security, without texts, examples and models.
// What such a server keeps in memory of the whole description is many times as much.
func Routes(flat []byte) ([]byte, error) {
	var d routesDocument
	if err := json.Unmarshal(flat, &d); err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	routes, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("routes of the API: %w", err)
	}
	return routes, nil
}

type routesDocument struct {
	routesOfAll
	Swagger             string                             `json:"swagger"`
	BasePath            string                             `json:"basePath,omitempty"`
	SecurityDefinitions json.RawMessage                    `json:"securityDefinitions,omitempty"`
	Paths               map[string]map[string]routesMethod `json:"paths"`
}

// routesOfAll is what the document defines for all operations, and what an operation may define for
// itself.
type routesOfAll struct {
	Consumes []string        `json:"consumes,omitempty"`
	Produces []string        `json:"produces,omitempty"`
	Schemes  []string        `json:"schemes,omitempty"`
	Security json.RawMessage `json:"security,omitempty"`
}

type routesMethod struct {
	routesOfAll
	ID         string              `json:"operationId"`
	Tags       []string            `json:"tags,omitempty"` // middleware decides by them
	Parameters []routesParameter   `json:"parameters,omitempty"`
	Responses  map[string]struct{} `json:"responses"`
}

type routesParameter struct {
	Name             string          `json:"name"`
	In               string          `json:"in"`
	Type             string          `json:"type,omitempty"`
	Format           string          `json:"format,omitempty"`
	CollectionFormat string          `json:"collectionFormat,omitempty"`
	Required         bool            `json:"required,omitempty"`
	Items            json.RawMessage `json:"items,omitempty"`
	Schema           *struct{}       `json:"schema,omitempty"`
}
