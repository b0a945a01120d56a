package eval

// Reasons of OpenFeature.
const (
	OpenFeatureDefault        = "DEFAULT"
	OpenFeatureDisabled       = "DISABLED"
	OpenFeatureStatic         = "STATIC"
	OpenFeatureSplit          = "SPLIT"
	OpenFeatureTargetingMatch = "TARGETING_MATCH"
	OpenFeatureError          = "ERROR"
)

// OpenFeatureReason returns OpenFeature's reason for the grant.
func (g Grant) OpenFeatureReason() string {
	switch {
	case g.ByBucket:
		return OpenFeatureSplit
	case g.Static:
		return OpenFeatureStatic
	default:
		return OpenFeatureTargetingMatch
	}
}

// OpenFeatureReason returns OpenFeature's reason for the result.
func (r *Result) OpenFeatureReason() string {
	switch r.Reason {
	case Matched:
		return r.given.grant().OpenFeatureReason()
	case FlagDisabled:
		return OpenFeatureDisabled
	case NoMatch, NoSegments:
		return OpenFeatureDefault
	default:
		return OpenFeatureError
	}
}
