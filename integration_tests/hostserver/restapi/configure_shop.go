package restapi

import (
	"context"
	"crypto/tls"
	"log"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"

	// Datar:
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"

	"shop.example/hostserver/models"
	"shop.example/hostserver/restapi/operations"
	"shop.example/hostserver/restapi/operations/recommendation"
	"shop.example/hostserver/shop"
)

// A test of the main module counts the lines from each comment "Datar:" to the next empty line.

func configureFlags(*operations.ShopAPI) {}

func configureAPI(api *operations.ShopAPI) http.Handler {
	db, err := shop.OpenDatabase()
	exitOn(err)

	// Datar:
	store, err := gormstore.New(context.Background(), db, gormstore.Options{TablePrefix: "shop_"})
	exitOn(err)
	engine, err := datar.New(datar.Options{Store: store, Catalog: experiments{}, Journal: datar.JournalOptions{Dir: "."}})
	exitOn(err)
	engine.Start()
	api.ServerShutdown = func() { exitOn(engine.Close(context.Background())) }

	api.RecommendationGetRecommendationsHandler = recommendation.GetRecommendationsHandlerFunc(
		func(p recommendation.GetRecommendationsParams) middleware.Responder {
			kind := shop.Decide(p.Customer)

			// Datar:
			engine.Record(datar.Event{FlagID: shop.Recommendations.ID, VariantID: kind, Time: time.Now()})

			name := shop.Kinds[kind]
			return recommendation.NewGetRecommendationsOK().WithPayload(&models.Recommendation{Kind: &name})
		})

	// Datar:
	return datarhttp.Mount(setupGlobalMiddleware(api.Serve(nil)), "/shop", engine)
}

// Datar:
type experiments struct{}

// Datar:
func (experiments) Flags(context.Context, []int64) (map[int64]datar.FlagInfo, error) {
	e := shop.Recommendations
	return map[int64]datar.FlagInfo{e.ID: {Key: e.Name, Description: e.About, Enabled: e.Running}}, nil
}

func exitOn(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func configureTLS(*tls.Config) {}

func configureServer(*http.Server, string, string) {}

func setupGlobalMiddleware(handler http.Handler) http.Handler { return handler }
