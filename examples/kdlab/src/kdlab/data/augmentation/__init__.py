"""Operations on pixels, policies that draw them, erased and mixed images."""
