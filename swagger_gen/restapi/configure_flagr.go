// This file is safe to edit. Once it exists it will not be overwritten

package restapi

import (
	"crypto/tls"
	"net/http"

	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/constraint"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/distribution"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/evaluation"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/exposure"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/flag"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/health"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/segment"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/tag"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/variant"
	"github.com/go-openapi/errors"
	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
)

//go:generate swagger generate server --target ../../swagger_gen --name Flagr --spec ../../swagger.yaml --principal any

func configureFlags(api *operations.FlagrAPI) {
	// api.CommandLineOptionsGroups = []cmdutils.CommandLineOptionsGroup{ ... }
	_ = api
}

func configureAPI(api *operations.FlagrAPI) http.Handler {
	// configure the api here
	api.ServeError = errors.ServeError

	// Set your custom logger if needed. Default one is log.Printf
	// Expected interface func(string, ...any)
	//
	// Example:
	// api.Logger = log.Printf

	api.UseSwaggerUI()
	// To continue using redoc as your UI, uncomment the following line
	// api.UseRedoc()

	api.JSONConsumer = runtime.JSONConsumer()

	api.BinProducer = runtime.ByteStreamProducer()
	api.JSONProducer = runtime.JSONProducer()

	if api.ConstraintCreateConstraintHandler == nil {
		api.ConstraintCreateConstraintHandler = constraint.CreateConstraintHandlerFunc(func(params constraint.CreateConstraintParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation constraint.CreateConstraint has not yet been implemented")
		})
	}
	if api.FlagCreateFlagHandler == nil {
		api.FlagCreateFlagHandler = flag.CreateFlagHandlerFunc(func(params flag.CreateFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.CreateFlag has not yet been implemented")
		})
	}
	if api.SegmentCreateSegmentHandler == nil {
		api.SegmentCreateSegmentHandler = segment.CreateSegmentHandlerFunc(func(params segment.CreateSegmentParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation segment.CreateSegment has not yet been implemented")
		})
	}
	if api.TagCreateTagHandler == nil {
		api.TagCreateTagHandler = tag.CreateTagHandlerFunc(func(params tag.CreateTagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation tag.CreateTag has not yet been implemented")
		})
	}
	if api.VariantCreateVariantHandler == nil {
		api.VariantCreateVariantHandler = variant.CreateVariantHandlerFunc(func(params variant.CreateVariantParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation variant.CreateVariant has not yet been implemented")
		})
	}
	if api.ConstraintDeleteConstraintHandler == nil {
		api.ConstraintDeleteConstraintHandler = constraint.DeleteConstraintHandlerFunc(func(params constraint.DeleteConstraintParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation constraint.DeleteConstraint has not yet been implemented")
		})
	}
	if api.FlagDeleteFlagHandler == nil {
		api.FlagDeleteFlagHandler = flag.DeleteFlagHandlerFunc(func(params flag.DeleteFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.DeleteFlag has not yet been implemented")
		})
	}
	if api.SegmentDeleteSegmentHandler == nil {
		api.SegmentDeleteSegmentHandler = segment.DeleteSegmentHandlerFunc(func(params segment.DeleteSegmentParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation segment.DeleteSegment has not yet been implemented")
		})
	}
	if api.TagDeleteTagHandler == nil {
		api.TagDeleteTagHandler = tag.DeleteTagHandlerFunc(func(params tag.DeleteTagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation tag.DeleteTag has not yet been implemented")
		})
	}
	if api.VariantDeleteVariantHandler == nil {
		api.VariantDeleteVariantHandler = variant.DeleteVariantHandlerFunc(func(params variant.DeleteVariantParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation variant.DeleteVariant has not yet been implemented")
		})
	}
	if api.FlagDuplicateFlagHandler == nil {
		api.FlagDuplicateFlagHandler = flag.DuplicateFlagHandlerFunc(func(params flag.DuplicateFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.DuplicateFlag has not yet been implemented")
		})
	}
	if api.TagFindAllTagsHandler == nil {
		api.TagFindAllTagsHandler = tag.FindAllTagsHandlerFunc(func(params tag.FindAllTagsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation tag.FindAllTags has not yet been implemented")
		})
	}
	if api.ConstraintFindConstraintsHandler == nil {
		api.ConstraintFindConstraintsHandler = constraint.FindConstraintsHandlerFunc(func(params constraint.FindConstraintsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation constraint.FindConstraints has not yet been implemented")
		})
	}
	if api.DistributionFindDistributionsHandler == nil {
		api.DistributionFindDistributionsHandler = distribution.FindDistributionsHandlerFunc(func(params distribution.FindDistributionsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation distribution.FindDistributions has not yet been implemented")
		})
	}
	if api.FlagFindFlagsHandler == nil {
		api.FlagFindFlagsHandler = flag.FindFlagsHandlerFunc(func(params flag.FindFlagsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.FindFlags has not yet been implemented")
		})
	}
	if api.SegmentFindSegmentsHandler == nil {
		api.SegmentFindSegmentsHandler = segment.FindSegmentsHandlerFunc(func(params segment.FindSegmentsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation segment.FindSegments has not yet been implemented")
		})
	}
	if api.TagFindTagsHandler == nil {
		api.TagFindTagsHandler = tag.FindTagsHandlerFunc(func(params tag.FindTagsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation tag.FindTags has not yet been implemented")
		})
	}
	if api.VariantFindVariantsHandler == nil {
		api.VariantFindVariantsHandler = variant.FindVariantsHandlerFunc(func(params variant.FindVariantsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation variant.FindVariants has not yet been implemented")
		})
	}
	if api.DatarGetDatarFlagSummaryHandler == nil {
		api.DatarGetDatarFlagSummaryHandler = datar.GetDatarFlagSummaryHandlerFunc(func(params datar.GetDatarFlagSummaryParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation datar.GetDatarFlagSummary has not yet been implemented")
		})
	}
	if api.DatarGetDatarSummaryHandler == nil {
		api.DatarGetDatarSummaryHandler = datar.GetDatarSummaryHandlerFunc(func(params datar.GetDatarSummaryParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation datar.GetDatarSummary has not yet been implemented")
		})
	}
	if api.EvaluationGetEvaluationHandler == nil {
		api.EvaluationGetEvaluationHandler = evaluation.GetEvaluationHandlerFunc(func(params evaluation.GetEvaluationParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation evaluation.GetEvaluation has not yet been implemented")
		})
	}
	if api.EvaluationGetEvaluationBatchHandler == nil {
		api.EvaluationGetEvaluationBatchHandler = evaluation.GetEvaluationBatchHandlerFunc(func(params evaluation.GetEvaluationBatchParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation evaluation.GetEvaluationBatch has not yet been implemented")
		})
	}
	if api.ExportGetExportEvalCacheJSONHandler == nil {
		api.ExportGetExportEvalCacheJSONHandler = export.GetExportEvalCacheJSONHandlerFunc(func(params export.GetExportEvalCacheJSONParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation export.GetExportEvalCacheJSON has not yet been implemented")
		})
	}
	if api.ExportGetExportSqliteHandler == nil {
		api.ExportGetExportSqliteHandler = export.GetExportSqliteHandlerFunc(func(params export.GetExportSqliteParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation export.GetExportSqlite has not yet been implemented")
		})
	}
	if api.FlagGetFlagHandler == nil {
		api.FlagGetFlagHandler = flag.GetFlagHandlerFunc(func(params flag.GetFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.GetFlag has not yet been implemented")
		})
	}
	if api.FlagGetFlagEntityTypesHandler == nil {
		api.FlagGetFlagEntityTypesHandler = flag.GetFlagEntityTypesHandlerFunc(func(params flag.GetFlagEntityTypesParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.GetFlagEntityTypes has not yet been implemented")
		})
	}
	if api.FlagGetFlagSnapshotMaxIDHandler == nil {
		api.FlagGetFlagSnapshotMaxIDHandler = flag.GetFlagSnapshotMaxIDHandlerFunc(func(params flag.GetFlagSnapshotMaxIDParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.GetFlagSnapshotMaxID has not yet been implemented")
		})
	}
	if api.FlagGetFlagSnapshotsHandler == nil {
		api.FlagGetFlagSnapshotsHandler = flag.GetFlagSnapshotsHandlerFunc(func(params flag.GetFlagSnapshotsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.GetFlagSnapshots has not yet been implemented")
		})
	}
	if api.HealthGetHealthHandler == nil {
		api.HealthGetHealthHandler = health.GetHealthHandlerFunc(func(params health.GetHealthParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation health.GetHealth has not yet been implemented")
		})
	}
	if api.EvaluationPostEvaluationHandler == nil {
		api.EvaluationPostEvaluationHandler = evaluation.PostEvaluationHandlerFunc(func(params evaluation.PostEvaluationParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation evaluation.PostEvaluation has not yet been implemented")
		})
	}
	if api.EvaluationPostEvaluationBatchHandler == nil {
		api.EvaluationPostEvaluationBatchHandler = evaluation.PostEvaluationBatchHandlerFunc(func(params evaluation.PostEvaluationBatchParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation evaluation.PostEvaluationBatch has not yet been implemented")
		})
	}
	if api.ExposurePostExposuresHandler == nil {
		api.ExposurePostExposuresHandler = exposure.PostExposuresHandlerFunc(func(params exposure.PostExposuresParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation exposure.PostExposures has not yet been implemented")
		})
	}
	if api.ConstraintPutConstraintHandler == nil {
		api.ConstraintPutConstraintHandler = constraint.PutConstraintHandlerFunc(func(params constraint.PutConstraintParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation constraint.PutConstraint has not yet been implemented")
		})
	}
	if api.DistributionPutDistributionsHandler == nil {
		api.DistributionPutDistributionsHandler = distribution.PutDistributionsHandlerFunc(func(params distribution.PutDistributionsParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation distribution.PutDistributions has not yet been implemented")
		})
	}
	if api.FlagPutFlagHandler == nil {
		api.FlagPutFlagHandler = flag.PutFlagHandlerFunc(func(params flag.PutFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.PutFlag has not yet been implemented")
		})
	}
	if api.SegmentPutSegmentHandler == nil {
		api.SegmentPutSegmentHandler = segment.PutSegmentHandlerFunc(func(params segment.PutSegmentParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation segment.PutSegment has not yet been implemented")
		})
	}
	if api.SegmentPutSegmentsReorderHandler == nil {
		api.SegmentPutSegmentsReorderHandler = segment.PutSegmentsReorderHandlerFunc(func(params segment.PutSegmentsReorderParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation segment.PutSegmentsReorder has not yet been implemented")
		})
	}
	if api.VariantPutVariantHandler == nil {
		api.VariantPutVariantHandler = variant.PutVariantHandlerFunc(func(params variant.PutVariantParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation variant.PutVariant has not yet been implemented")
		})
	}
	if api.FlagRestoreFlagHandler == nil {
		api.FlagRestoreFlagHandler = flag.RestoreFlagHandlerFunc(func(params flag.RestoreFlagParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.RestoreFlag has not yet been implemented")
		})
	}
	if api.FlagSetFlagEnabledHandler == nil {
		api.FlagSetFlagEnabledHandler = flag.SetFlagEnabledHandlerFunc(func(params flag.SetFlagEnabledParams) middleware.Responder {
			_ = params

			return middleware.NotImplemented("operation flag.SetFlagEnabled has not yet been implemented")
		})
	}

	api.PreServerShutdown = func() {}

	api.ServerShutdown = func() {}

	return setupGlobalMiddleware(api.Serve(setupMiddlewares))
}

// The TLS configuration before HTTPS server starts.
func configureTLS(tlsConfig *tls.Config) {
	// Make all necessary changes to the TLS configuration here.
	_ = tlsConfig
}

// As soon as server is initialized but not run yet, this function will be called.
// If you need to modify a config, store server instance to stop it individually later, this is the place.
// This function can be called multiple times, depending on the number of serving schemes.
// scheme value will be set accordingly: "http", "https" or "unix".
func configureServer(server *http.Server, scheme, addr string) {
	_ = server
	_ = scheme
	_ = addr
}

// The middleware configuration is for the handler executors. These do not apply to the swagger.json document.
// The middleware executes after routing but before authentication, binding and validation.
func setupMiddlewares(handler http.Handler) http.Handler {
	return handler
}

// The middleware configuration happens before anything, this middleware also applies to serving the swagger.json document.
// So this is a good place to plug in a panic handling middleware, logging and metrics.
func setupGlobalMiddleware(handler http.Handler) http.Handler {
	return handler
}
