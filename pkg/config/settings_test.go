package config_test

import (
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

func TestSettingsHideSecrets(t *testing.T) {
	t.Parallel()
	c, err := config.Load(map[string]string{"PORT": "18001", "FLAGR_DB_DBDRIVER": "postgres", "FLAGR_DB_DBCONNECTIONSTR": "postgres://ann:s3cret@db/flagr", "FLAGR_JWT_AUTH_SECRET": "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]config.Setting{}
	for _, s := range c.Settings() {
		seen[s.Name] = s
		if strings.Contains(s.Value, "s3cret") {
			t.Errorf("%s shows %q", s.Name, s.Value)
		}
	}
	if s := seen["PORT"]; s.Value != "18001" || s.Default != "18000" || !s.Set {
		t.Errorf("PORT is %+v", s)
	}
	if s := seen["FLAGR_DB_DBCONNECTIONSTR"]; !s.Secret || !s.Set || s.Value != "" {
		t.Errorf("FLAGR_DB_DBCONNECTIONSTR is %+v", s)
	}
	if s := seen["FLAGR_DB_DBCONNECTION_DEBUG"]; s.Set || s.Value != s.Default {
		t.Errorf("FLAGR_DB_DBCONNECTION_DEBUG is %+v", s)
	}
	if len(seen) != len(config.Variables()) {
		t.Errorf("%d settings of %d variables", len(seen), len(config.Variables()))
	}
}
