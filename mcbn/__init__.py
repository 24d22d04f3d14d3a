"""Bayesian uncertainty for trained networks with batch normalisation."""

from mcbn.bank import Bank as Bank
from mcbn.categorical import Categorical as Categorical
from mcbn.categorical import CategoricalPredictive as CategoricalPredictive
from mcbn.collection import collect as collect
from mcbn.comparison import Comparison as Comparison
from mcbn.comparison import compare as compare
from mcbn.consistency import Consistency as Consistency
from mcbn.consistency import InconsistentBankWarning as InconsistentBankWarning
from mcbn.consistency import consistency as consistency
from mcbn.evaluation import Evaluation as Evaluation
from mcbn.evaluation import Score as Score
from mcbn.evaluation import evaluate as evaluate
from mcbn.evaluation import out_of_distribution as out_of_distribution
from mcbn.gaussian import Gaussian as Gaussian
from mcbn.gaussian import GaussianPredictive as GaussianPredictive
from mcbn.gaussian import fit_precision as fit_precision
from mcbn.minibatches import minibatches as minibatches
from mcbn.predictive import predict as predict
from mcbn.samplers import DeepEnsemble as DeepEnsemble
from mcbn.samplers import Deterministic as Deterministic
from mcbn.samplers import MCBatchNorm as MCBatchNorm
from mcbn.samplers import MCDropout as MCDropout

__version__ = "0.1.0"
