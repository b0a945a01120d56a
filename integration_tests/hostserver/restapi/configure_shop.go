package restapi

import (
	"context"
	"crypto/tls"
	"log"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"

	"shop.example/hostserver/models"
	"shop.example/hostserver/restapi/operations"
	"shop.example/hostserver/restapi/operations/recommendation"
	"shop.example/hostserver/shop"
)

func configureFlags(*operations.ShopAPI) {}

func configureAPI(api *operations.ShopAPI) http.Handler {
	s, err := shop.Open()
	exitOn(err)
	store, err := gormstore.New(context.Background(), s.DB, gormstore.Options{TablePrefix: "shop_"})
	exitOn(err)
	experiments := datar.StaticCatalog{shop.Recommendations.ID: {Key: shop.Recommendations.Name, Enabled: true}}
	engine, err := datar.New(datar.Options{Store: store, Catalog: experiments, FlushInterval: s.Interval, Journal: datar.JournalOptions{Dir: "."}})
	exitOn(err)
	engine.Start()
	api.ServerShutdown = func() { exitOn(engine.Close(context.Background())) }
	api.RecommendationGetRecommendationsHandler = recommendation.GetRecommendationsHandlerFunc(
		func(p recommendation.GetRecommendationsParams) middleware.Responder {
			kind := s.Decide(p.Customer)
			engine.Record(datar.Event{FlagID: shop.Recommendations.ID, VariantID: kind, Time: time.Now()})
			name := shop.Kinds[kind]
			return recommendation.NewGetRecommendationsOK().WithPayload(&models.Recommendation{Kind: &name})
		})
	return setupGlobalMiddleware(datarhttp.Mount(api.Serve(nil), "/shop", engine))
}

func exitOn(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func configureTLS(*tls.Config) {}

func configureServer(*http.Server, string, string) {}

// setupGlobalMiddleware adds the shop's access control to all paths.
func setupGlobalMiddleware(handler http.Handler) http.Handler { return shop.Authenticate(handler) }
